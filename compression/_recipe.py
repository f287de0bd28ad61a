"""Compression recipes: stages with their options, in the order of their application."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimsearch.compression._network import Network
from slimsearch.compression._stage import Stage, Training, TrainingStage, plain, shared_epochs, train_together
from slimsearch.errors import SlimsearchError, did_you_mean
from slimsearch.names import absolute, check_name, load_class, published
from slimsearch.reading import mismatch, read_yaml, yaml_value

PlainRecipe = Mapping[str, Mapping[str, Any]]
"""A stored recipe: the options of each stage by its name, with a ``+`` before the name of a joined stage."""

_STAGES = "slimsearch.compression"
_FOLDER = Path(__file__).parent / "recipes"
_PLAIN: Mapping[str, Any] = {"str": str, "int": int, "float": float, "bool": bool, "None": type(None)}
_JOINED = re.compile(r"\+(?=[A-Za-z_])")  # not the sign in a number such as 1e+3


@dataclass(frozen=True)
class RecipeStage:
    """One stage of a recipe.

    Attributes:
        name: a built-in stage, ``path/to/file.py:Class`` or ``package.module:Class``.
        options: arguments of the stage's class; plain values.
        joined: whether the recipe joins the stage to the training run of the stage before it.
    """

    name: str
    options: Mapping[str, Any]
    joined: bool = False

    @property
    def key(self) -> str:
        """The name in the stored form of a recipe, ``+name`` for a joined stage."""
        return f"+{self.name}" if self.joined else self.name

    @functools.cached_property
    def stage(self) -> Stage:
        """The stage itself, constructed at the first access.

        Raises:
            SlimsearchError: an unknown stage or option, or a wrong value.
        """
        stage_class = load_class("stage", self.name, _STAGES)
        if Stage not in stage_class.__mro__:
            raise SlimsearchError(f"stage '{self.name}' is not a subclass of slimsearch.compression.Stage")
        if dataclasses.is_dataclass(stage_class):
            known = [f.name for f in dataclasses.fields(stage_class) if f.init]
            for option in self.options:
                if option not in known:
                    similar, listed = did_you_mean(option, known), ", ".join(known)
                    raise SlimsearchError(f"stage '{self.name}' has no option '{option}'; it has {listed}{similar}")
            self._check_types(stage_class)
        try:
            json.dumps(dict(self.options))
            stage: Stage = stage_class(**self.options)
        except (SlimsearchError, TypeError, ValueError) as error:
            raise SlimsearchError(f"stage '{self.name}' with {dict(self.options)}: {error}") from error
        return stage

    def _check_types(self, stage_class: type[Any]) -> None:
        for own in dataclasses.fields(stage_class):
            kinds = str(getattr(own.type, "__name__", own.type)).split(" | ")
            if own.name not in self.options or not set(kinds) <= _PLAIN.keys():
                continue
            value, label = self.options[own.name], f"stage '{self.name}': option '{own.name}'"
            wrong = mismatch(value, functools.reduce(operator.or_, (_PLAIN[kind] for kind in kinds)), label)
            if wrong is None and isinstance(value, float) and not math.isfinite(value):
                wrong = f"{label} is {value}, no finite number"
            if wrong is not None:
                raise SlimsearchError(wrong)


@dataclass(frozen=True)
class StageGroup:
    """Stages that are applied, scored, and kept or rejected as one.

    A group is one stage, or several that share a training run: a stage that the recipe joins with ``+`` to the one
    before it, and a stage that only adds to the loss, such as a distillation, next to one that trains.
    """

    stages: tuple[RecipeStage, ...]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The entries of `Recipe.to_dict` for this group."""
        return {stage.key: dict(stage.options) for stage in self.stages}

    @property
    def changes_cost(self) -> bool:
        """Whether the group can lower latency or size."""
        return any(one.stage.changes_cost for one in self.stages)

    def training_share(self, epochs: int) -> float:
        """Length of the group's training run relative to `epochs` epochs; 0.0 without training."""
        training = self._training
        return shared_epochs(training, epochs) / epochs if training else 0.0

    def apply(self, network: Network, training: Training) -> Network:
        """The network after every stage of the group.

        Raises:
            SlimsearchError: a stage cannot be applied to this network.
        """
        together = self._training
        if together:
            return train_together(together, network, training)
        return self.stages[0].stage.apply(plain(network, training), training)

    @property
    def _training(self) -> list[TrainingStage]:
        return [one.stage for one in self.stages if isinstance(one.stage, TrainingStage)]


@dataclass(frozen=True, eq=False)
class Recipe:
    """A validated recipe. Construct it with `parse` or `from_dict`; ``Recipe()`` is empty.

    Recipes are equal if they have the same stages with the same options in the same order.

    Attributes:
        groups: the stages, in groups that are applied one after the other.
    """

    groups: tuple[StageGroup, ...] = ()

    @classmethod
    def parse(cls, words: str | PlainRecipe) -> Recipe:
        """Parse a user's recipe, with stages by their published names and absolute paths of files.

        Args:
            words: ``prune:sparsity=0.6:epochs=4,distill,quantize``, with a ``+`` in place of the comma before a stage
                that shares the training run of the stage before it; the name of a shipped recipe; the path of a YAML
                file; "none" for the empty recipe; or stages with their options, as JSON or as a mapping.

        Raises:
            SlimsearchError: a file that cannot be read, an unknown stage or option, a wrong value, an order in which
                the stages cannot be applied, or different learning rates for one training run.
        """
        found = cls(_grouped([_resolved(stage) for stage in _stages_named_by(words)]))
        found._check_learning_rates()
        return found

    @staticmethod
    def check_names(words: str | PlainRecipe) -> None:
        """Check that the stages of a user's recipe exist, without importing them.

        Raises:
            SlimsearchError: a file cannot be read, or there is no stage of a name.
        """
        for stage in _stages_named_by(words):
            check_name("stage", stage.name, _STAGES)

    @classmethod
    def from_dict(cls, plain: PlainRecipe) -> Recipe:
        """The recipe whose `to_dict` is `plain`; paths stay unchanged.

        Raises:
            SlimsearchError: an unknown stage or option, a wrong value, or an order that is not possible.
        """
        return cls(_grouped(_stages_in(plain, "recipe")))

    def check(self) -> None:
        """Check that the recipe can be applied on this machine.

        Raises:
            SlimsearchError: the file of a teacher is missing, or stages that share a training run have different
                learning rates, which earlier versions accepted.
        """
        self._check_learning_rates()
        for stage in self.stages:
            for label, value in stage.options.items():
                if isinstance(value, str) and value.endswith(".onnx") and not Path(value).expanduser().is_file():
                    raise SlimsearchError(f"stage '{stage.name}': {label}: there is no file '{value}'")

    def _check_learning_rates(self) -> None:
        for group in self.groups:
            rates = {one.name: rate for one in group.stages if (rate := getattr(one.stage, "learning_rate", None))}
            if len(set(rates.values())) > 1:
                raise SlimsearchError(
                    f"stages {', '.join(rates)} share one training run: give them the same learning_rate, "
                    f"not {', '.join(f'{rate:g}' for rate in rates.values())}"
                )

    @staticmethod
    def shipped() -> list[str]:
        """Names of the recipes that come with the package."""
        return sorted(path.stem for path in _FOLDER.glob("*.yaml"))

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values: the options of each stage by its name, with a ``+`` before the name of a joined stage."""
        return {stage.key: dict(stage.options) for stage in self.stages}

    def text(self) -> str:
        """One line that `parse` reads as this recipe."""
        pieces = []
        for stage in self.stages:
            words = [f"{label}={_word(value)}" for label, value in stage.options.items()]
            pieces.append(("+" if stage.joined else ",") + ":".join([stage.name, *words]))
        text = "".join(pieces).lstrip(",") or "none"
        try:
            readable = _identity(_stages_named_by(text)) == _identity(self.stages)
        except SlimsearchError:
            readable = False
        return text if readable else json.dumps(self.to_dict())  # e.g. a value with a comma

    @property
    def stages(self) -> tuple[RecipeStage, ...]:
        """All stages, in order."""
        return tuple(stage for group in self.groups for stage in group.stages)

    @property
    def changes_cost(self) -> bool:
        """Whether the recipe can lower latency or size."""
        return any(group.changes_cost for group in self.groups)

    def with_option(self, option: str, value: Any) -> Recipe:
        """The recipe with `option` set for every stage that has such an option and no value for it yet."""
        changed = [
            one if option in one.options or not hasattr(one.stage, option)
            else dataclasses.replace(one, options={**one.options, option: value})
            for one in self.stages
        ]  # fmt: skip
        return Recipe(_grouped(changed))

    def begins_with(self, other: Recipe) -> bool:
        """Whether the first stages of this recipe are those of `other`."""
        return _identity(self.stages[: len(other.stages)]) == _identity(other.stages)

    def remainder(self, done: Recipe) -> Recipe:
        """The stages that are left for a network to which `done` was applied.

        Raises:
            SlimsearchError: the recipe does not begin with `done`.
        """
        if not self.begins_with(done):
            raise SlimsearchError(f"recipe {self.to_dict()} does not begin with {done.to_dict()}")
        return Recipe(_grouped(self.stages[len(done.stages) :]))

    def steps(self, epochs: int) -> list[tuple[StageGroup, float]]:
        """The groups with their `StageGroup.training_share`."""
        return [(group, group.training_share(epochs)) for group in self.groups]

    def apply(self, network: Network, training: Training) -> Network:
        """The network after every stage, in order.

        Raises:
            SlimsearchError: a stage cannot be applied to this network.
        """
        for group in self.groups:
            network = group.apply(network, training)
        return network

    def __bool__(self) -> bool:
        return bool(self.groups)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and _identity(self.stages) == _identity(other.stages)

    def __hash__(self) -> int:
        return hash(_identity(self.stages))


def _identity(stages: Sequence[RecipeStage]) -> str:
    return json.dumps([[stage.key, sorted(stage.options.items())] for stage in stages])


def _grouped(stages: Sequence[RecipeStage]) -> tuple[StageGroup, ...]:
    """The stages in groups; constructs and so validates each.

    Raises:
        SlimsearchError: a stage is invalid, occurs twice, follows a last stage, or has no training to share.
    """
    groups: list[list[RecipeStage]] = []
    for position, stage in enumerate(stages):
        before = stages[:position]
        if stage.name in [other.name for other in before]:
            raise SlimsearchError(f"stage '{stage.name}' stands twice in the recipe")
        if before and before[-1].stage.is_last and not stage.joined:
            raise SlimsearchError(f"nothing can follow '{before[-1].key}': put '{stage.name}' before it")
        group = groups[-1] if groups else []
        trains = [isinstance(one.stage, TrainingStage) for one in (*group, stage)]
        shares = bool(group) and all(trains)
        if stage.joined and not shares:
            raise SlimsearchError(
                f"'{stage.key}' has no training to share with '{group[-1].key if group else 'nothing'}'"
            )
        only_loss = not stage.stage.changes_cost or not any(one.stage.changes_cost for one in group)
        if shares and (stage.joined or only_loss):
            group.append(stage)
        else:
            groups.append([stage])
    return tuple(StageGroup(tuple(group)) for group in groups)


def _stages_named_by(words: str | PlainRecipe) -> list[RecipeStage]:
    if not isinstance(words, str):
        return _stages_in(words, "recipe")
    text = words.strip()
    if text.lower() in ("", "none"):
        return []
    if text in Recipe.shipped():
        return _read(_FOLDER / f"{text}.yaml")
    if text.startswith("{"):
        try:
            return _stages_in(json.loads(text), "recipe")
        except (ValueError, RecursionError) as error:
            raise SlimsearchError(f"recipe {text} is not JSON: {error}") from error
    if text.endswith((".yaml", ".yml")) and "," not in text:
        return _read(Path(text).expanduser())
    return [
        _stage_of(word, joined=position > 0)
        for together in text.split(",")
        for position, word in enumerate(_JOINED.split(together))
    ]


def _stage_of(text: str, *, joined: bool) -> RecipeStage:
    """The stage in ``name:option=value:option=value``."""
    name, *words = _split_at_colons(text)
    options = {}
    for word in words:
        label, equals, value = word.partition("=")
        if not equals:
            raise SlimsearchError(f"option '{word}' of stage '{name}' is not of the form name=value")
        options[label.replace("-", "_")] = yaml_value(value)
    return RecipeStage(name, options, joined)


def _split_at_colons(text: str) -> list[str]:
    """The words between colons, except for the colon of ``path/to/file.py:Class``."""
    words: list[str] = []
    for word in text.strip().split(":"):
        if words and words[-1].endswith(".py") and "=" not in word:
            words[-1] = f"{words[-1]}:{word.strip()}"
        else:
            words.append(word.strip())
    return words


def _read(path: Path) -> list[RecipeStage]:
    try:
        values = read_yaml(path)
    except FileNotFoundError:
        raise SlimsearchError(f"there is no recipe '{path}'; shipped ones: {', '.join(Recipe.shipped())}") from None
    return _stages_in(values, f"'{path}'")


def _stages_in(values: Any, source: str) -> list[RecipeStage]:
    if not isinstance(values, Mapping) or not all(isinstance(v, Mapping | None) for v in values.values()):
        raise SlimsearchError(f"{source} is not a mapping of stages to their options")
    return [
        RecipeStage(
            str(key).removeprefix("+"),
            {str(label).replace("-", "_"): value for label, value in (options or {}).items()},
            str(key).startswith("+"),
        )
        for key, options in values.items()
    ]


def _resolved(stage: RecipeStage) -> RecipeStage:
    options = {label: _absolute(value) for label, value in stage.options.items()}
    found = RecipeStage(absolute(published(stage.name, _STAGES)), options, stage.joined)
    if found == stage:
        return stage
    _ = stage.stage  # fails for a relative path from a run directory, which an absolute path would hide
    return found


def _absolute(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    path = Path(value).expanduser()
    return str(path.resolve()) if path.suffix == ".onnx" else absolute(value)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
