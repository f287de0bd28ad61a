"""Grid search, in the order of the choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Point, Space
from slimsearch.strategies.samplers._sampler import History


class Grid:
    """The first untried point of the grid; the last choice varies fastest."""

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        cursor = history.memo.get("grid")
        if cursor is None or cursor.space is not space:
            points = space.grid()
            cursor = history.memo["grid"] = _Cursor(space, points, next(points))
        # Never goes back, since tried points stay tried.
        while not cursor.at_end and history.tried(cursor.point):
            following = next(cursor.points, None)
            cursor.point, cursor.at_end = (cursor.point, True) if following is None else (following, False)
        return cursor.point


@dataclass
class _Cursor:
    """The current point of the grid, and whether it is the last one."""

    space: Space
    points: Iterator[Point]
    point: Point
    at_end: bool = False
