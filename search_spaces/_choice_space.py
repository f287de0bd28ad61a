"""Spaces without networks: independent choices, and subsets of another space."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces._graph import Graph
from slimsearch.search_spaces._space import Candidate, Choice, Point, Space


def _nothing(point: Point) -> Mapping[str, float]:
    return {}


def _no_graph(point: Point) -> Graph | None:
    return None


class ChoiceSpace(Space):
    """Every combination of the values of independent choices.

    Args:
        choices: label to values, which are plain JSON.
        known: metrics of a point that are known before it is evaluated.
        graph: the cell that a point describes, or None.

    Raises:
        SlimsearchError: there are no choices, two have the same label, or the values of one are no list or not unique.
    """

    def __init__(
        self,
        choices: Mapping[str, Sequence[Any]],
        *,
        known: Callable[[Point], Mapping[str, float]] = _nothing,
        graph: Callable[[Point], Graph | None] = _no_graph,
    ) -> None:
        if not choices:
            raise SlimsearchError("the space has no choices: there is nothing to search")
        for label, values in choices.items():
            if isinstance(values, str | bytes) or not isinstance(values, Sequence):
                raise SlimsearchError(f"choice '{label}' needs a list of values, not {values!r}")
        unsorted = [Choice(str(label), tuple(values)) for label, values in choices.items()]
        self._choices = tuple(sorted(unsorted, key=lambda choice: choice.label))
        self._by_label = {choice.label: choice for choice in self._choices}
        if len(self._by_label) < len(self._choices):
            raise SlimsearchError(f"two choices have the same label: {', '.join(c.label for c in self._choices)}")
        self._known, self._graph = known, graph

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self._choices

    def canonical(self, point: Point) -> dict[str, Any]:
        unknown = [label for label in point if label not in self._by_label]
        if unknown:
            raise SlimsearchError(f"unknown label '{unknown[0]}'; the space has {', '.join(self._by_label)}")
        missing = [label for label in self._by_label if label not in point]
        if missing:
            raise SlimsearchError(f"label '{missing[0]}' is missing")
        return {c.label: c.values[c.index(point[c.label])] for c in self._choices}

    def known(self, point: Point) -> Mapping[str, float]:
        return self._known(point)

    def graph(self, point: Point) -> Graph | None:
        return self._graph(point)


class Subset(Space):
    """Some points of another space.

    Args:
        space: the other space.
        points: at least one; duplicates count once.

    Raises:
        SlimsearchError: there is no point, or one is not in `space`.
    """

    def __init__(self, space: Space, points: Sequence[Point]) -> None:
        self._space = space
        self._points: dict[str, dict[str, Any]] = {}
        for point in points:
            if space.contains(point):
                space.confirmed(space.canonical(point))
        for position, point in enumerate(points, start=1):
            try:
                canonical = space.canonical(point)
            except SlimsearchError as error:
                raise SlimsearchError(f"architecture {position} of {len(points)}: {error}") from None
            self._points.setdefault(Candidate(canonical).key, canonical)
        if not self._points:
            raise SlimsearchError("the list of architectures is empty")

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self._space.choices

    @property
    def size(self) -> int:
        return len(self._points)

    def canonical(self, point: Point) -> dict[str, Any]:
        canonical = self._space.canonical(point)
        if Candidate(canonical).key not in self._points:
            raise SlimsearchError(f"{canonical} is not one of the {self.size} chosen architectures")
        return canonical

    @property
    def revision(self) -> int:
        return self._space.revision

    def candidate(self, point: Point) -> Candidate:
        return self._space.candidate(self.canonical(point))

    def point(self, candidate: Candidate) -> dict[str, Any]:
        return self._space.point(candidate)

    def architecture(self, point: Any) -> dict[str, Any]:
        return self._space.architecture(point)

    def known(self, point: Point) -> Any:
        return self._space.known(point)

    def graph(self, point: Point) -> Graph | None:
        return self._space.graph(point)

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        return dict(list(self._points.values())[int(rng.integers(self.size))])

    def shuffled_neighbours(self, point: Point, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """All other points in random order, since no point may differ in one choice only."""
        others = [other for other in self._points.values() if other != point]
        yield from (dict(others[int(position)]) for position in rng.permutation(len(others)))

    def grid(self) -> Iterator[dict[str, Any]]:
        """All points, in the given order."""
        yield from (dict(point) for point in self._points.values())
