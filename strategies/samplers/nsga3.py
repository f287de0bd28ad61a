"""NSGA-III."""

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


class Nsga3:
    """Optuna's NSGA-III with a population of 20: NSGA-II with reference directions in place of crowding.

    Meant for three objectives and more; with one it is a genetic algorithm with elites. Source: Deb and Jain 2014.
    Generations as in `Nsga2`. What differs from Optuna: the ties that NSGA-III breaks at random when it picks
    the parents of a generation are broken anew for each proposal.
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

        return optuna.samplers.NSGAIIISampler(seed=seed, population_size=self.POPULATION)

    def _generation(self, position: int) -> dict[str, Any]:
        import optuna

        return {optuna.samplers.NSGAIIISampler._get_generation_key(): position // self.POPULATION}
