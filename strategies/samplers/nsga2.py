"""NSGA-II."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Point, Space
from slimsearch.strategies.samplers import _optuna
from slimsearch.strategies.samplers._sampler import History

if TYPE_CHECKING:
    import optuna


class Nsga2:
    """Optuna's NSGA-II with a population of 20.

    Source: Deb et al. 2002. A trial's generation follows from its place among the finished ones, so that nothing
    but the history decides about a proposal. A child that was tried gives way to another, the third to a neighbour.
    """

    POPULATION = 20

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        return _optuna.propose_new(
            self._make, space, objectives, history, rng, startup=self.POPULATION, generation=self._generation
        )

    def _make(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.NSGAIISampler(seed=seed, population_size=self.POPULATION)

    def _generation(self, position: int) -> dict[str, Any]:
        import optuna

        return {optuna.samplers.NSGAIISampler._get_generation_key(): position // self.POPULATION}
