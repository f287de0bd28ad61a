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
from slimsearch.search_spaces._functions.trial import Trial, check_same
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
    _hyperparameters: Mapping[str, Choice] | None = None
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
        return tuple(self._conditions.choices.values())

    @property
    def training(self) -> Mapping[str, Sequence[Any]]:
        assert self._conditions is not None  # they are found with the choices
        found = self._hyperparameters or {}
        return {HYPERPARAMETER_OF[label]: list(choice.values) for label, choice in found.items()}

    @property
    def revision(self) -> int:
        return self._conditions.revision

    @property
    def _conditions(self) -> Conditions:
        if self._learned is None:
            found = self._find_choices()
            self._check_hyperparameters(found)
            self._learned = found
            if not found.choices:
                self.build({})  # a function that fails before its first choice says why
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
        except SlimsearchError:  # its trial fails with this message
            return dict(point)
        self._late |= conditions.choices.keys() - known
        return {c.label: point.get(c.label, c.values[0]) for c in self.choices if c.label in asked}

    def build(self, architecture: Mapping[str, Any], seed: int = 0) -> nn.Module:
        import torch

        from slimsearch.packed_module import packed

        _check_mapping(architecture)
        trial = Trial(architecture)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                module = self._answered(trial)
                if isinstance(module, torch.nn.Module):
                    _materialize(module, self.input_shape)
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
        return packed(module, self.inputs, self.outputs)

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
            if label not in choices:
                raise SlimsearchError(f"unknown label '{label}'; {self.name} has {', '.join(choices)}")
            choices[label].index(value)
        active = self._conditions.active(point)
        labels = active - {RULED_OUT}
        if RULED_OUT in active:
            return None, labels
        late = {label: choices[label].values[0] for label in self._late if label not in point}
        given = {**late, **point}
        return {label: given[label] for label in choices if label in labels and label in given}, labels

    def _asked_at(self, point: Point) -> dict[str, Choice | None]:
        """The choices of the architecture that the function asks for at a point; where it fails, those until then."""
        trial, error = self._tried(point, self._device)
        if error is not None and not _rules_out(error) and self._device == "meta":
            # It may need real tensors, such as for torch.linspace(...).tolist().
            trial, error = self._tried(point, "cpu")
            if error is None:
                self._device = "cpu"
        asked: dict[str, Choice | None] = {n: c for n, c in trial.asked.items() if n not in HYPERPARAMETER_OF}
        if error is not None:
            return {**asked, RULED_OUT: None} if _rules_out(error) else asked
        own = {label: choice for label, choice in trial.asked.items() if label in HYPERPARAMETER_OF}
        known = own if self._hyperparameters is None else self._hyperparameters
        if own.keys() != known.keys():
            raise SlimsearchError(
                f"{self.name} asks for '{min(own.keys() ^ known.keys())}' in some calls only: training "
                "hyper-parameters are asked for in every call"
            )
        for label, choice in own.items():
            check_same(known[label], choice)
        self._hyperparameters = known
        return asked

    def _tried(self, point: Point, device: str) -> tuple[Trial, Exception | None]:
        """The trial of a call at `point`, and the error with which it ended."""
        import torch

        trial = Trial(point)
        with (
            torch.random.fork_rng(devices=[]), torch.device(device), contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):  # fmt: skip
            warnings.simplefilter("ignore")
            try:
                self._answered(trial)
            except SlimsearchError:
                raise
            except Exception as error:  # a user's function may raise anything
                return trial, error
        return trial, None

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

    def _check_hyperparameters(self, conditions: Conditions) -> None:
        """Check that no choice depends on a training hyper-parameter."""
        before = conditions.learn({})
        for label, choice in (self._hyperparameters or {}).items():
            for value in choice.values:
                different = before ^ self._asked_at({label: value}).keys()
                if different:
                    raise SlimsearchError(
                        f"{self.name} asks for '{min(different)}' only for some values of '{label}', which is of the "
                        "training, not of the architecture"
                    )


def _materialize(module: nn.Module, shape: Sequence[int]) -> None:
    """Give lazy layers their sizes, by a forward pass on zeros."""
    import torch

    if any(torch.nn.parameter.is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        training = module.training
        with torch.no_grad():
            module.eval()(torch.zeros(2, *shape))
        module.train(training)


def _check_mapping(point: Any) -> None:
    if not isinstance(point, Mapping):
        raise SlimsearchError(f"an architecture is a dict from label to value, not {reprlib.repr(point)}")


def _rules_out(error: Exception) -> bool:
    """Whether an exception is Optuna's `TrialPruned`."""
    return any(kind.__name__ == "TrialPruned" for kind in type(error).__mro__)


def _shown(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
