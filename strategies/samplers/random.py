"""Random search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Point, Space
from slimsearch.strategies.samplers._sampler import History, new_point


class Random:
    """Uniform draws of all choices, without repeats."""

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        return new_point(space, history, lambda: space.sample(rng), rng)
