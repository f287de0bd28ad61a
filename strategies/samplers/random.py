"""Uniform draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluators import Objective
from search_spaces import Point, Space
from strategies.samplers._sampler import History


class Random:
    """Every choice uniform, whatever the history says."""

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        return space.sample(rng)
