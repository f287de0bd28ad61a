"""Recipe spaces: choices of training and compression, read from YAML or plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.reading import read_yaml
from slimsearch.search_spaces._space import Candidate, Choice, Point, Space

TRAINING = "training"
"""The entry of training hyper-parameters among the stages of a recipe space."""
HYPERPARAMETERS = ("learning_rate", "batch_size", "weight_decay", "augmentation", "warm_up")
"""Hyper-parameters of the training that can be searched."""
_USE = "use"
_FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class _Option:
    """An option of a stage or of training: its values (a single one if fixed), and its conditions by label."""

    name: str
    values: tuple[Any, ...]
    when: Mapping[str, tuple[Any, ...]]


class RecipeSpace(Space):
    """All recipes of stages with options, and the training before them.

    ``training`` has hyper-parameters of the training; every other key is a compression stage, in the order of
    application. An option is a fixed value, a list of values, or ``{values: [...], when: {label: values}}``.
    A stage with ``use: [true, false]`` may be left out. The labels of choices are ``stage.option``, ``stage.use`` and
    ``training.option``. A choice is inactive if its stage is left out, or if a choice in its condition is inactive or
    has another value::

        training:
          learning_rate: [0.002, 0.005, 0.01]
        prune:
          use: [true, false]
          sparsity: [0.25, 0.5, 0.75]
          epochs: {values: [2, 4], when: {prune.sparsity: [0.5, 0.75]}}
        quantize:
          use: [true, false]
          calibration: {values: [minmax, entropy]}

    Names of stages and options are not checked here.

    Args:
        content: as above.
        source: origin of the content, for error messages.

    Raises:
        SlimsearchError: the content is invalid, or a condition names a choice that is missing or comes later.
    """

    def __init__(self, content: Mapping[str, Any], source: str = "the recipe space") -> None:
        self._source = source
        if not isinstance(content, Mapping) or not content:
            raise SlimsearchError(f"{source} is not a mapping of stages to their options")
        self.content = {str(stage): dict(self._options(stage, options)) for stage, options in content.items()}
        self._stages = {stage: self._stage(stage, options) for stage, options in self.content.items()}
        self._choices = tuple(
            self._choice(f"{stage}.{option.name}", option.values)
            for stage, options in self._stages.items()
            for option in options
            if len(option.values) > 1
        )
        self._by_label = {choice.label: choice for choice in self._choices}
        self._check_conditions()

    @classmethod
    def read(cls, path: Path) -> RecipeSpace:
        """The recipe space of a YAML file.

        Raises:
            SlimsearchError: the file cannot be read or is invalid.
        """
        try:
            content = read_yaml(path)
        except FileNotFoundError:
            raise SlimsearchError(f"there is no recipe space '{path}'; shipped: {', '.join(cls.shipped())}") from None
        return cls(content, f"'{path}'")

    @staticmethod
    def shipped() -> dict[str, Path]:
        """The files of the shipped recipe spaces, by name."""
        return {path.stem: path for path in sorted(_FOLDER.glob("*.yaml"))}

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self._choices

    @property
    def compresses(self) -> bool:
        """Whether the space has a compression stage."""
        return any(stage != TRAINING for stage in self._stages)

    @property
    def training(self) -> tuple[Choice, ...]:
        """The choices of the training before compression."""
        return tuple(choice for choice in self._choices if choice.label.startswith(f"{TRAINING}."))

    def canonical(self, point: Point) -> dict[str, Any]:
        for label, value in point.items():
            if label not in self._by_label:
                raise SlimsearchError(f"unknown label '{label}'; {self._source} has {', '.join(self._by_label)}")
            self._by_label[label].index(value)
        active: dict[str, Any] = {}
        for stage, options in self._stages.items():
            for option in options:
                label = f"{stage}.{option.name}"
                if label in self._by_label and self._active(stage, option, active):
                    if label not in point:
                        raise SlimsearchError(f"label '{label}' is missing")
                    active[label] = point[label]
        return active

    def candidate(self, point: Point) -> Candidate:
        """A candidate with a recipe and training, without an architecture."""
        canonical = self.canonical(point)
        found: dict[str, dict[str, Any]] = {}
        for stage, options in self._stages.items():
            if stage != TRAINING and not self._used(stage, canonical):
                continue
            found[stage] = {
                option.name: canonical.get(f"{stage}.{option.name}", option.values[0])
                for option in options
                if option.name != _USE and self._active(stage, option, canonical)
            }
        training = found.pop(TRAINING, {})
        return Candidate({}, found, training)

    def point(self, candidate: Candidate) -> dict[str, Any]:
        """The point whose recipe and training are those of `candidate`."""
        point: dict[str, Any] = {}
        for stage, options in self._stages.items():
            given = candidate.training if stage == TRAINING else candidate.recipe.get(stage)
            for option in options:
                label = f"{stage}.{option.name}"
                if label not in self._by_label:
                    continue
                if option.name == _USE:
                    point[label] = given is not None
                elif given is not None and option.name in given:
                    point[label] = given[option.name]
        return self.canonical(point)

    def _options(self, stage: Any, options: Any) -> Mapping[str, Any]:
        if not isinstance(options, Mapping | None):
            raise SlimsearchError(f"{self._source}: '{stage}' is not a mapping of options to their values")
        return {str(name).replace("-", "_"): value for name, value in (options or {}).items()}

    def _stage(self, stage: str, options: Mapping[str, Any]) -> list[_Option]:
        if stage == TRAINING and _USE in options:
            raise SlimsearchError(f"{self._source}: training cannot be left out, it has no '{_USE}'")
        found = [self._option(stage, name, given) for name, given in options.items()]
        return sorted(found, key=lambda option: option.name != _USE)  # whether the stage is used comes first

    def _option(self, stage: str, name: str, given: Any) -> _Option:
        where = f"{self._source}: '{stage}.{name}'"
        values, when = given, dict[str, Any]()
        if isinstance(given, Mapping) and "values" in given:
            if set(given) - {"values", "when"}:
                raise SlimsearchError(f"{where} has more than values and when: {', '.join(map(str, given))}")
            values, when = given["values"], given.get("when") or {}
            if not isinstance(when, Mapping):
                raise SlimsearchError(f"{where}: when is not a mapping of labels to values")
        elif isinstance(given, Mapping):
            raise SlimsearchError(f"{where} is a mapping without values")
        values = tuple(values) if isinstance(values, Sequence) and not isinstance(values, str) else (values,)
        if not values:
            raise SlimsearchError(f"{where} has no values")
        if name == _USE and not set(values) <= {True, False}:
            raise SlimsearchError(f"{where} is true, false, or both")
        conditions = {
            str(label): tuple(allowed) if isinstance(allowed, list | tuple) else (allowed,)
            for label, allowed in when.items()
        }
        return _Option(name, values, conditions)

    def _choice(self, label: str, values: tuple[Any, ...]) -> Choice:
        try:
            return Choice(label, values)
        except SlimsearchError as error:
            raise SlimsearchError(f"{self._source}: {error}") from None

    def _check_conditions(self) -> None:
        earlier: set[str] = set()
        for stage, options in self._stages.items():
            for option in options:
                for label, allowed in option.when.items():
                    if label not in earlier:
                        known = ", ".join(sorted(earlier)) or "none"
                        raise SlimsearchError(
                            f"{self._source}: '{stage}.{option.name}' waits for '{label}'; choices above it: {known}"
                        )
                    for value in allowed:
                        self._by_label[label].index(value)
                if f"{stage}.{option.name}" in self._by_label:
                    earlier.add(f"{stage}.{option.name}")

    def _used(self, stage: str, active: Point) -> bool:
        use = next((option for option in self._stages[stage] if option.name == _USE), None)
        if use is None:
            return True
        if len(use.values) > 1:
            return bool(active.get(f"{stage}.{_USE}", False))  # inactive: not used
        return bool(use.values[0]) and self._active(stage, use, active)

    def _active(self, stage: str, option: _Option, active: Point) -> bool:
        """Whether an option applies; `active` has all active choices before it."""
        if stage != TRAINING and option.name != _USE and not self._used(stage, active):
            return False
        return all(
            label in active and any(_same(active[label], value) for value in allowed)
            for label, allowed in option.when.items()
        )


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other
