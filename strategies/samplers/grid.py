"""Grid search, in the order of the choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Point, Space
from slimsearch.strategies.samplers._sampler import History


class Grid:
    """The first point of the grid that was not tried; the last choice varies fastest."""

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        place = history.memo.get("grid")
        if place is None or place.space is not space:
            walk = space.grid()
            place = history.memo["grid"] = _Place(space, walk, next(walk))
        # Tried points stay tried: the walk never goes back.
        while not place.end and history.tried(place.point):
            following = next(place.walk, None)
            place.point, place.end = (place.point, True) if following is None else (following, False)
        return place.point


@dataclass
class _Place:
    """The position of the walk over the grid; `end`: `point` is the last one."""

    space: Space
    walk: Iterator[Point]
    point: Point
    end: bool = False
