"""Regularized (aging) evolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Point, Space
from slimsearch.strategies.samplers._dominance import standings
from slimsearch.strategies.samplers._sampler import History, Observation, new_point


class RegularizedEvolution:
    """The best of a few drawn from the latest trials, with one choice changed.

    Source: Real et al. 2019, "Regularized evolution for image classifier architecture search": the oldest die, not the
    worst. Differences: a population of 30 and a sample of 10 in place of 100 and 25, no repeats, and with several
    objectives the best trial has the lowest Pareto rank and, within it, the largest crowding distance.
    """

    POPULATION = 30
    SAMPLE = 10

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        if history.finished_count < self.POPULATION:
            return new_point(space, history, lambda: space.sample(rng), rng)
        population = self._population(history)
        keys = standings(population)

        def child() -> dict[str, Any]:
            sample = rng.choice(len(population), size=self.SAMPLE, replace=False)
            parent = min(sample, key=lambda i: keys[i])
            return space.mutate(population[parent].point, rng)

        return new_point(space, history, child, rng)

    def _population(self, history: History) -> list[Observation]:
        latest: list[Observation] = []
        for observation in reversed(history.observations):
            if observation.losses is not None:
                latest.append(observation)
            if len(latest) == self.POPULATION:
                break
        return latest
