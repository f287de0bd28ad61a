"""Some points of a space, and no others: what is searched when networks are chosen already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces._candidate import Candidate
from slimsearch.search_spaces._graph import Graph
from slimsearch.search_spaces._space import Choice, Point, Space


class Subset(Space):
    """These points of `space`, each with what that space knows of it.

    Args:
        space: whose points they are.
        points: at least one; those that are equal count once.

    Raises:
        SlimsearchError: there is none, or one is not in `space`.
    """

    def __init__(self, space: Space, points: Sequence[Point]) -> None:
        self._space = space
        self._points: dict[str, dict[str, Any]] = {}
        for position, point in enumerate(points, start=1):
            try:
                canonical = space.canonical(point)
            except SlimsearchError as error:
                raise SlimsearchError(f"architecture {position} of {len(points)}: {error}") from None
            self._points.setdefault(Candidate(canonical).key, canonical)
        if not self._points:
            raise SlimsearchError("there is no architecture to choose from")

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self._space.choices

    @property
    def size(self) -> int:
        return len(self._points)

    def canonical(self, point: Point) -> dict[str, Any]:
        canonical = self._space.canonical(point)
        if Candidate(canonical).key not in self._points:
            raise SlimsearchError(f"{canonical} is not among the {self.size} architectures that were chosen")
        return canonical

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
        """All others, in random order: those that differ in one choice need not be there."""
        others = [other for other in self._points.values() if other != point]
        yield from (dict(others[int(position)]) for position in rng.permutation(len(others)))

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every point, in the order in which they were given."""
        yield from (dict(point) for point in self._points.values())
