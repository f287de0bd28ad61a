"""Search spaces as data: choices, points, candidates, and moves between points.

A point is a plain dict from label to value. All operations of samplers (sample, mutate, crossover, neighbours, encode)
are implemented once, on top of `Space.choices` and `Space.canonical`.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces._graph import Graph

Point = Mapping[str, Any]
"""Values by label; without the labels that are inactive there, if it is canonical."""


@dataclass(frozen=True)
class Candidate:
    """An architecture and its compression recipe, as plain dicts.

    Attributes:
        architecture: label to value, without inactive labels, such as ``{"conv2": 0, "feature": 64}``.
        recipe: compression stages in the order of their application, each with its options, such as
            ``{"prune": {"sparsity": 0.5}, "quantize": {}}``; empty for an uncompressed network.
        training: searched hyper-parameters of its training.
    """

    architecture: Mapping[str, Any]
    recipe: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A short hash; equal for equal candidates, in every process."""
        # The order of labels is irrelevant, the order of stages is not.
        content: list[Any] = [
            sorted(self.architecture.items()),
            [[s, sorted(o.items())] for s, o in self.recipe.items()],
        ]
        if self.training:
            content.append(sorted(self.training.items()))
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.key == other.key


@dataclass(frozen=True)
class Choice:
    """A label and its possible values, which are plain JSON."""

    label: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise SlimsearchError(f"choice '{self.label}' has no values")
        try:
            positions = {json.dumps(value): position for position, value in enumerate(self.values)}
        except (TypeError, ValueError) as error:
            raise SlimsearchError(f"choice '{self.label}': {error}; values must be plain JSON") from None
        if len(positions) < len(self.values):
            raise SlimsearchError(f"choice '{self.label}' has a value twice")
        object.__setattr__(self, "_positions", positions)
        # Looked up millions of times, several times faster than JSON text. 0.0 and -0.0 differ by their text alone.
        plain = {
            (type(value), value): i
            for i, value in enumerate(self.values)
            if type(value) in (bool, int, str) or (type(value) is float and value != 0)
        }
        object.__setattr__(self, "_plain", plain)

    @property
    def texts(self) -> tuple[str, ...]:
        """All values as JSON text."""
        return tuple(self._positions)  # type: ignore[attr-defined]

    def text(self, value: Any) -> str:
        """`value` as JSON text, as it is recorded."""
        return json.dumps(value)

    def index(self, value: Any) -> int:
        """Index of `value` among the values; compared as JSON text, so that 1 is not 1.0.

        Raises:
            SlimsearchError: `value` is not among them.
        """
        try:
            if type(value) in (bool, int, str, float):
                found = self._plain.get((type(value), value))  # type: ignore[attr-defined]
                if found is not None:
                    return found  # type: ignore[no-any-return]
            return self._positions[json.dumps(value)]  # type: ignore[attr-defined, no-any-return]
        except (KeyError, ValueError, TypeError, RecursionError):
            raise SlimsearchError(
                f"'{self.label}' cannot be {reprlib.repr(value)}; allowed: {', '.join(map(repr, self.values))}"
            ) from None


@dataclass(frozen=True)
class Ancestor:
    """A network in the lineage of another one.

    Attributes:
        name: equal for equal networks.
        trainings: cost from the previous network of the lineage, in trainings from initial weights; 0 for the
            first one if it is trained already.
        point: of the network itself; None if the space has no such point.
    """

    name: str
    trainings: float
    point: Point | None


class Space(ABC):
    """A finite set of points over choices; choices can be inactive in some points."""

    @property
    @abstractmethod
    def choices(self) -> tuple[Choice, ...]:
        """All choices, in a fixed order."""

    @abstractmethod
    def canonical(self, point: Point) -> dict[str, Any]:
        """`point` without inactive labels, in the order of the choices; equal for equal networks.

        Raises:
            SlimsearchError: a label is missing or unknown, or its value is not allowed.
        """

    def known(self, point: Point) -> Mapping[str, float]:
        """Metrics that follow exactly from `point`, without evaluation; empty if there are none."""
        return {}

    def graph(self, point: Point) -> Graph | None:
        """The cell that `point` describes, as a graph of operations; None if it does not describe one."""
        return None

    def lineage(self, point: Point) -> list[Ancestor]:
        """The networks that are trained one after the other to obtain that of `point`, which is the last.

        A network is trained once for all points with it in their lineage. Empty if points share no networks.
        """
        return []

    def reference(self) -> Point | None:
        """The point that is evaluated before all others, to compare them with it; None if there is no such point."""
        return None

    def related_points(self, point: Point, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """Points that share networks with `point`, possibly repeated; newly active choices are random."""
        return iter(())

    @property
    def revision(self) -> int:
        """Number of changes of the space by `confirmed`; what was cached of it before one no longer holds."""
        return 0

    def confirmed(self, point: Point) -> dict[str, Any]:
        """A canonical point, looked at once more before its trial begins.

        A space whose choices are learned may learn here of further ones, which the result has with their first values.
        What it learns follows from the points that it was given, in their order.
        """
        return dict(point)

    def derived_points(self, point: Point) -> Iterator[dict[str, Any]]:
        """Points whose networks are all in the lineage of `point`, such as its network in other number formats."""
        return iter(())

    def contains(self, point: Point) -> bool:
        """Whether `point` is in the space."""
        try:
            self.canonical(point)
        except SlimsearchError:
            return False
        return True

    def candidate(self, point: Point) -> Candidate:
        """The candidate of `point`: its architecture and its recipe."""
        return Candidate(architecture=self.canonical(point))

    def point(self, candidate: Candidate) -> dict[str, Any]:
        """The point of `candidate`; the inverse of `Space.candidate`."""
        return dict(candidate.architecture)

    def architecture(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """The labels of `point`, which may be incomplete, that belong to the architecture."""
        return dict(point)

    @property
    def size(self) -> int:
        """Number of combinations of all choices; an upper bound if choices can be inactive."""
        size = 1
        for choice in self.choices:
            size *= len(choice.values)
        return size

    def complete(self, point: Point) -> dict[str, Any]:
        """`point` with a value for every label; inactive choices get their first value."""
        return {c.label: point.get(c.label, c.values[0]) for c in self.choices}

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """A random point, uniform over the combinations of all choices.

        Raises:
            SlimsearchError: a thousand draws in a row violate the constraints of the space.
        """
        for _ in range(1000):
            point = {c.label: c.values[int(rng.integers(len(c.values)))] for c in self.choices}
            canonical = self._canonical_or_none(point)
            if canonical is not None:
                return canonical
        raise SlimsearchError("none of 1,000 random points is valid: the constraints of the space leave (almost) none")

    def mutate(self, point: Point, rng: np.random.Generator) -> dict[str, Any]:
        """A random neighbor: one active choice takes another value; newly active choices are random."""
        active = self.canonical(point)
        return next(self.shuffled_neighbours(active, rng), active)

    def crossover(self, one: Point, other: Point, rng: np.random.Generator) -> dict[str, Any]:
        """A child that takes each choice from one of its parents (uniform crossover, Syswerda 1989)."""
        parents = self.complete(one), self.complete(other)
        child = {c.label: parents[int(rng.integers(2))][c.label] for c in self.choices}
        canonical = self._canonical_or_none(child)
        return self.canonical(one) if canonical is None else canonical

    def neighbours(self, point: Point, rng: np.random.Generator | None = None) -> Iterator[dict[str, Any]]:
        """All points that differ in one active choice.

        Newly active choices take their first value, or a random one if `rng` is given.
        """
        active = self.canonical(point)
        for choice, value in self._moves(active):
            changed = self._changed(active, choice, value, rng)
            if changed is not None:
                yield changed

    def shuffled_neighbours(self, point: Point, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """The neighbors in random order, generated lazily; newly active choices are random."""
        active = self.canonical(point)
        moves = self._moves(active)
        for position in rng.permutation(len(moves)):
            choice, value = moves[int(position)]
            changed = self._changed(active, choice, value, rng)
            if changed is not None:
                yield changed

    def _moves(self, active: Point) -> list[tuple[Choice, Any]]:
        """Every active choice with each of its other values."""
        return [
            (choice, value)
            for choice in self.choices
            if choice.label in active
            for current in (choice.index(active[choice.label]),)
            for index, value in enumerate(choice.values)
            if index != current
        ]

    def _changed(
        self, active: Point, choice: Choice, value: Any, rng: np.random.Generator | None
    ) -> dict[str, Any] | None:
        """`active` with another value of one choice; None if that is not in the space, or the same network."""
        filled = {
            c.label: active.get(c.label, c.values[int(rng.integers(len(c.values)))] if rng is not None else c.values[0])
            for c in self.choices
        }
        filled[choice.label] = value
        changed = self._canonical_or_none(filled)
        # Compared as JSON text where that can differ: 1, 1.0 and True are equal, and other values of a choice.
        is_same = changed == active and json.dumps(changed) == json.dumps(active)
        return None if is_same else changed

    def _canonical_or_none(self, point: Point) -> dict[str, Any] | None:
        try:
            return self.canonical(point)
        except SlimsearchError:
            return None

    def _resolved(self, point: Point) -> tuple[dict[str, Any] | None, Collection[str]]:
        """The canonical point (None if `point` is not in the space), and the labels that this depends on."""
        canonical = self._canonical_or_none(point)
        return canonical, canonical if canonical is not None else point

    def grid(self) -> Iterator[dict[str, Any]]:
        """All points without repeats, in the order of the choices."""
        yielded = set()
        sizes = [len(choice.values) for choice in self.choices]
        digits = [0] * len(sizes)
        # Whether a choice was relevant to a point since a choice before it changed. If not, its other values give the
        # same points again, possibly billions of times, and are skipped.
        mattered = [False] * len(sizes)
        while True:
            point = {c.label: c.values[d] for c, d in zip(self.choices, digits, strict=True)}
            canonical, labels = self._resolved(point)
            for position, choice in enumerate(self.choices):
                mattered[position] |= choice.label in labels
            if canonical is not None and (key := json.dumps(canonical)) not in yielded:
                yielded.add(key)
                yield canonical
            for position in reversed(range(len(sizes))):
                if mattered[position] and digits[position] + 1 < sizes[position]:
                    digits[position] += 1
                    break
                digits[position], mattered[position] = 0, False
            else:
                return

    def encode(self, point: Point) -> np.ndarray[Any, np.dtype[np.float64]]:
        """One-hot vector over all values of all choices; zeros for inactive choices."""
        blocks = []
        for choice in self.choices:
            block = np.zeros(len(choice.values))
            if choice.label in point:
                block[choice.index(point[choice.label])] = 1.0
            blocks.append(block)
        return np.concatenate(blocks) if blocks else np.zeros(0)
