"""What can vary, as data: choices, the points that they span, and the moves between points.

A point is a plain dict from label to value. Everything that a sampler needs to move in a space (sample,
mutate, crossover, neighbours, encode) is written here once, over `Space.choices` and `Space.canonical`.
"""

from __future__ import annotations

import json
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces._candidate import Candidate
from slimsearch.search_spaces._graph import Graph

Point = Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """One thing that varies: a label and the plain JSON values it can take."""

    label: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise SlimsearchError(f"choice '{self.label}' has no values")
        try:
            positions = {json.dumps(value): position for position, value in enumerate(self.values)}
        except (TypeError, ValueError) as error:
            raise SlimsearchError(f"choice '{self.label}': {error}; values are plain JSON") from None
        if len(positions) < len(self.values):
            raise SlimsearchError(f"choice '{self.label}' has a value twice")
        object.__setattr__(self, "_positions", positions)

    def text(self, value: Any) -> str:
        """`value` as the JSON text under which it is recorded."""
        return json.dumps(value)

    def index(self, value: Any) -> int:
        """Position of `value` among the values; equality is that of the JSON text, so 1 is not 1.0.

        Raises:
            SlimsearchError: `value` is not among them.
        """
        try:
            return self._positions[json.dumps(value)]  # type: ignore[attr-defined, no-any-return]
        except (KeyError, ValueError, TypeError, RecursionError):
            raise SlimsearchError(
                f"'{self.label}' cannot be {reprlib.repr(value)}; allowed: {', '.join(map(repr, self.values))}"
            ) from None


@dataclass(frozen=True)
class Stop:
    """A network on the way to another one.

    Attributes:
        name: equal for equal networks.
        trainings: what it takes from the one before it, in trainings of a network from new weights; above 0.
        point: what stands for the network itself; None where the space has nothing that does.
    """

    name: str
    trainings: float
    point: Point | None


class Space(ABC):
    """A finite set of points spanned by choices, where some choices may be inactive in some points."""

    @property
    @abstractmethod
    def choices(self) -> tuple[Choice, ...]:
        """Every choice of the space, active or not, in a fixed order."""

    @abstractmethod
    def canonical(self, point: Point) -> dict[str, Any]:
        """`point` with inactive labels dropped, in the order of the choices: equal things are equal dicts.

        Raises:
            SlimsearchError: a label is missing or unknown, or its value is not allowed.
        """

    def known(self, point: Point) -> Mapping[str, float]:
        """Metrics that follow from `point` alone, exactly and in no time; none where the space knows of none."""
        return {}

    def graph(self, point: Point) -> Graph | None:
        """The operations of the cell that `point` describes and how they are connected, where it describes one."""
        return None

    def way(self, point: Point) -> list[Stop]:
        """The networks that are trained one after the other to come to that of `point`.

        One is trained once for all points whose way leads by it. Empty where points have nothing in common.
        """
        return []

    def relatives(self, point: Point, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """Points that share a part of their way with `point`, what a change activates being drawn; maybe some twice."""
        return iter(())

    def contains(self, point: Point) -> bool:
        """Whether `point` is in the space."""
        try:
            self.canonical(point)
        except SlimsearchError:
            return False
        return True

    def candidate(self, point: Point) -> Candidate:
        """The candidate that `point` stands for: its architecture, with an empty recipe."""
        return Candidate(architecture=self.canonical(point))

    def point(self, candidate: Candidate) -> dict[str, Any]:
        """The point that stands for `candidate`; the inverse of `candidate`."""
        return dict(candidate.architecture)

    def architecture(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """What of a point, or of some labels of one, is the architecture."""
        return dict(point)

    @property
    def size(self) -> int:
        """Number of combinations of all choices; an upper bound where choices can be inactive."""
        size = 1
        for choice in self.choices:
            size *= len(choice.values)
        return size

    def complete(self, point: Point) -> dict[str, Any]:
        """`point` with a value for every label: an inactive one gets the first of its values."""
        return {c.label: point.get(c.label, c.values[0]) for c in self.choices}

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """A point whose choices are drawn uniformly.

        Raises:
            SlimsearchError: a thousand draws in a row break the space's own constraints.
        """
        for _ in range(1000):
            point = {c.label: c.values[int(rng.integers(len(c.values)))] for c in self.choices}
            canonical = self._canonical_or_none(point)
            if canonical is not None:
                return canonical
        raise SlimsearchError("1,000 random draws gave no valid point: the space's constraints leave (almost) none")

    def mutate(self, point: Point, rng: np.random.Generator) -> dict[str, Any]:
        """A different point: one active choice takes another value, and what becomes active is drawn anew."""
        active = self.canonical(point)
        return next(self.shuffled_neighbours(active, rng), active)

    def crossover(self, one: Point, other: Point, rng: np.random.Generator) -> dict[str, Any]:
        """A child that takes each choice from one of its parents (uniform crossover, Syswerda 1989)."""
        parents = self.complete(one), self.complete(other)
        child = {c.label: parents[int(rng.integers(2))][c.label] for c in self.choices}
        found = self._canonical_or_none(child)
        return self.canonical(one) if found is None else found

    def neighbours(self, point: Point, rng: np.random.Generator | None = None) -> Iterator[dict[str, Any]]:
        """Every point that differs in one active choice.

        What the change activates takes its first value, or a drawn one where `rng` is given.
        """
        active = self.canonical(point)
        for choice, value in self._moves(active):
            changed = self._changed(active, choice, value, rng)
            if changed is not None:
                yield changed

    def shuffled_neighbours(self, point: Point, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """The neighbours in random order, each made when it is asked for; what a change activates is drawn."""
        active = self.canonical(point)
        moves = self._moves(active)
        for position in rng.permutation(len(moves)):
            choice, value = moves[int(position)]
            changed = self._changed(active, choice, value, rng)
            if changed is not None:
                yield changed

    def _moves(self, active: Point) -> list[tuple[Choice, Any]]:
        """Every active choice with every other value of it."""
        return [
            (choice, value)
            for choice in self.choices
            if choice.label in active
            for value in choice.values
            if choice.text(value) != choice.text(active[choice.label])
        ]

    def _changed(
        self, active: Point, choice: Choice, value: Any, rng: np.random.Generator | None
    ) -> dict[str, Any] | None:
        """`active` with another value of one choice, or None where that is no point of the space."""
        filled = {
            c.label: active.get(c.label, c.values[int(rng.integers(len(c.values)))] if rng is not None else c.values[0])
            for c in self.choices
        }
        filled[choice.label] = value
        return self._canonical_or_none(filled)

    def _canonical_or_none(self, point: Point) -> dict[str, Any] | None:
        try:
            return self.canonical(point)
        except SlimsearchError:
            return None

    def _resolved(self, point: Point) -> tuple[dict[str, Any] | None, Collection[str]]:
        """The canonical point, None where `point` is not in the space, and the labels that decide about it."""
        canonical = self._canonical_or_none(point)
        return canonical, canonical if canonical is not None else point

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every different point, in the order of the choices."""
        seen = set()
        sizes = [len(choice.values) for choice in self.choices]
        digits = [0] * len(sizes)
        # Whether a choice decided about any point since a choice before it changed. Where it did not, its other values
        # would only give the same points again: there may be billions of those.
        mattered = [False] * len(sizes)
        while True:
            point = {c.label: c.values[d] for c, d in zip(self.choices, digits, strict=True)}
            canonical, labels = self._resolved(point)
            for position, choice in enumerate(self.choices):
                mattered[position] |= choice.label in labels
            if canonical is not None and (key := json.dumps(canonical)) not in seen:
                seen.add(key)
                yield canonical
            for position in reversed(range(len(sizes))):
                if mattered[position] and digits[position] + 1 < sizes[position]:
                    digits[position] += 1
                    break
                digits[position], mattered[position] = 0, False
            else:
                return

    def encode(self, point: Point) -> np.ndarray[Any, np.dtype[np.float64]]:
        """One-hot vector over all values of all choices, all zeros for an inactive choice."""
        blocks = []
        for choice in self.choices:
            block = np.zeros(len(choice.values))
            if choice.label in point:
                block[choice.index(point[choice.label])] = 1.0
            blocks.append(block)
        return np.concatenate(blocks) if blocks else np.zeros(0)
