"""NSGA-III."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slimsearch.strategies.samplers._optuna import OptunaSampler

if TYPE_CHECKING:
    import optuna


class Nsga3(OptunaSampler):
    """Optuna's NSGA-III with a population of 20: NSGA-II with reference directions in place of crowding.

    Meant for three or more objectives; with one it is a genetic algorithm with elites. Generations as in `Nsga2`.

    Source: Deb and Jain 2014. Difference from Optuna: random tie-breaks in the selection of a generation's parents are
    repeated for each proposal.
    """

    STARTUP = 20

    def make(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.NSGAIIISampler(seed=seed, population_size=self.STARTUP)

    def generation(self, position: int) -> dict[str, Any]:
        import optuna

        return {optuna.samplers.NSGAIIISampler._get_generation_key(): position // self.STARTUP}
