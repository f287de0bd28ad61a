"""Base class of the spaces that functions of the user describe."""

from __future__ import annotations

import contextlib
import io
import reprlib
import warnings
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cloudpickle

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.search_spaces._functions.conditions import RULED_OUT, Conditions
from slimsearch.search_spaces._functions.trial import Trial
from slimsearch.search_spaces._model_space import ModelSpace
from slimsearch.search_spaces._recipe_space import HYPERPARAMETERS
from slimsearch.search_spaces._space import Choice, Point

if TYPE_CHECKING:
    from torch import nn

HYPERPARAMETER_OF = {**{name: name for name in HYPERPARAMETERS}, "augment": "augmentation"}
"""Labels that stand for training hyper-parameters, and the names of these."""
_COMPARED = 4  # values of a choice, for the layers that it affects


class FunctionSpace(ModelSpace):
    """The networks that a function makes, whose choices are those that it asks a `Trial` for.

    Which choices are active at a point follows from calls on the meta device, which allocates no weights. Choices that
    are called like a training hyper-parameter belong to `training`, not to the architecture.
    """

    _learned: Conditions | None = None
    _late: frozenset[str] = frozenset()
    _device: str = "meta"

    @abstractmethod
    def _answered(self, trial: Trial) -> Any:
        """The result of the user's function, which gets its choices from `trial`."""

    @abstractmethod
    def _find_choices(self) -> Conditions:
        """The choices and their conditions."""

    def __getstate__(self) -> dict[str, Any]:
        try:
            # By value, since other processes cannot import a function from a notebook, a script or a file.
            code = cloudpickle.dumps(self.code)
        except Exception as error:  # pickling raises many kinds
            raise SlimsearchError(f"{self.name} cannot be sent to worker processes: {describe_error(error)}") from error
        learned = None if self._learned is None else self._learned.__getstate__() | {"_call": None}
        return {**vars(self), "code": code, "_learned": learned}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.code = cloudpickle.loads(state["code"])
        if state["_learned"] is not None:
            self._learned = Conditions(self._asked_at)
            vars(self._learned).update(state["_learned"] | {"_call": self._asked_at})

    @property
    def choices(self) -> tuple[Choice, ...]:
        return tuple(c for c in self._conditions.choices.values() if c.label not in HYPERPARAMETER_OF)

    @property
    def training(self) -> Mapping[str, Sequence[Any]]:
        return {
            HYPERPARAMETER_OF[label]: list(choice.values)
            for label, choice in self._conditions.choices.items()
            if label in HYPERPARAMETER_OF
        }

    @property
    def revision(self) -> int:
        return self._conditions.revision

    @property
    def _conditions(self) -> Conditions:
        if self._learned is None:
            self._learned = self._find_choices()
            self._check_training()
            if not self.choices:
                raise SlimsearchError(f"'{self.name}' has no choices: there is nothing to search")
        return self._learned

    def canonical(self, point: Point) -> dict[str, Any]:
        found, active = self._looked_up(point)
        if found is None:
            raise SlimsearchError(f"{self.name} rules out {dict(point)}")
        for label in active:
            if label not in found:
                raise SlimsearchError(f"label '{label}' is missing")
        return found

    def confirmed(self, point: Point) -> dict[str, Any]:
        conditions, known = self._conditions, set(self._conditions.choices)
        try:
            asked = conditions.learn(point)
            self._check_training()
        except SlimsearchError:  # its trial fails with this message
            return dict(point)
        self._late |= conditions.choices.keys() - known
        return {c.label: point.get(c.label, c.values[0]) for c in self.choices if c.label in asked}

    def build(self, architecture: Mapping[str, Any], seed: int = 0) -> nn.Module:
        import torch

        _check_mapping(architecture)
        trial = Trial(architecture)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                module = self._answered(trial)
            except SlimsearchError:
                raise
            except Exception as error:  # a user's function may raise anything
                if _rules_out(error):
                    raise SlimsearchError(f"{self.name} rules out {dict(architecture)}") from error
                raise SlimsearchError(
                    f"{self.name} cannot build {dict(architecture)}{self._line(error)}: {describe_error(error)}"
                ) from error
        missing = trial.asked.keys() - architecture.keys() - HYPERPARAMETER_OF.keys()
        if missing:
            raise SlimsearchError(f"label '{min(missing)}' is missing: {self.name} asks for it here")
        if not architecture.keys() <= trial.asked.keys():
            self.canonical(architecture)  # refuses unknown labels; inactive ones are allowed
        if not isinstance(module, torch.nn.Module):
            raise SlimsearchError(f"{self.name} returns {_shown(module)}, not a network (a torch.nn.Module)")
        return module

    def affected_layers(self) -> dict[str, list[str]]:
        found = {}
        for choice in self.choices:
            base = {**self.complete({}), **self._conditions.examples[choice.label]}
            layers = [self._layers({**base, choice.label: value}) for value in choice.values[:_COMPARED]]
            names = {name: None for one in layers for name in one}
            found[choice.label] = [n for n in names if any(one.get(n) != layers[0].get(n) for one in layers)]
        return found

    def _resolved(self, point: Point) -> tuple[dict[str, Any] | None, Collection[str]]:
        found, active = self._looked_up(point)
        return (found if found is not None and active <= found.keys() else None), active

    def _looked_up(self, point: Point) -> tuple[dict[str, Any] | None, set[str]]:
        """The values of `point` that are active, or None if it is ruled out; and the active labels."""
        _check_mapping(point)
        choices = self._conditions.choices
        if not point.keys() <= choices.keys():
            self.confirmed(point)  # a choice that appears only there
        for label, value in point.items():
            if label not in choices or label in HYPERPARAMETER_OF:
                known = ", ".join(choice.label for choice in self.choices)
                raise SlimsearchError(f"unknown label '{label}'; {self.name} has {known}")
            choices[label].index(value)
        active = self._conditions.active(point) - HYPERPARAMETER_OF.keys()
        labels = active - {RULED_OUT}
        if RULED_OUT in active:
            return None, labels
        late = {label: choices[label].values[0] for label in self._late if label not in point}
        given = {**late, **point}
        return {label: given[label] for label in choices if label in labels and label in given}, labels

    def _asked_at(self, point: Point) -> dict[str, Choice | None]:
        """The choices that the function asks for at a point; where it fails, those until then."""
        trial = Trial(point)
        try:
            self._called(trial, self._device)
        except SlimsearchError:
            raise
        except Exception as error:  # a user's function may raise anything
            if _rules_out(error):
                return {**trial.asked, RULED_OUT: None}
            if self._device == "meta":  # it may need real tensors, such as for torch.linspace(...).tolist()
                trial = Trial(point)
                with contextlib.suppress(Exception):
                    self._called(trial, "cpu")
                    self._device = "cpu"
        return dict(trial.asked)

    def _called(self, trial: Trial, device: str) -> None:
        import torch

        with (
            torch.random.fork_rng(devices=[]), torch.device(device), contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):  # fmt: skip
            warnings.simplefilter("ignore")
            self._answered(trial)

    def _layers(self, point: Point) -> dict[str, tuple[str, ...]]:
        """The layers of a network by name: their kinds, options and shapes."""
        import torch

        with torch.device(self._device):
            module = self.build(self.confirmed(point))
        return {
            name: (type(layer).__name__, layer.extra_repr(), *(str(tuple(p.shape)) for p in layer.parameters(False)))
            for name, layer in module.named_modules()
            if name
        }

    def _check_training(self) -> None:
        """Check that training hyper-parameters and architecture do not depend on each other."""
        assert self._learned is not None
        for label in self._learned.choices:
            parents = self._learned.parents(label)
            if label in HYPERPARAMETER_OF and parents:
                raise SlimsearchError(
                    f"{self.name} asks for '{label}' only for some values of '{parents[0]}': training "
                    "hyper-parameters are asked for in every call"
                )
            for parent in parents:
                if parent in HYPERPARAMETER_OF:
                    raise SlimsearchError(
                        f"{self.name} asks for '{label}' only for some values of '{parent}', which is of the training, "
                        "not of the architecture"
                    )


def _check_mapping(point: Any) -> None:
    if not isinstance(point, Mapping):
        raise SlimsearchError(f"an architecture is a dict from label to value, not {reprlib.repr(point)}")


def _rules_out(error: Exception) -> bool:
    """Whether an exception is Optuna's `TrialPruned`."""
    return any(kind.__name__ == "TrialPruned" for kind in type(error).__mro__)


def _shown(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
