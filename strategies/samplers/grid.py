"""One point after the other, in the order of the choices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluators import Objective
from search_spaces import Candidate, Point, Space
from strategies.samplers._sampler import History


class Grid:
    """The first point of the grid that the history does not have; the last choice varies fastest."""

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        tried = {Candidate(o.point) for o in history.observations}
        point: Point = {}
        for point in space.grid():
            if space.candidate(point) not in tried:
                return point
        return point
