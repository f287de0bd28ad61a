"""NSGA-II."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slimsearch.strategies.samplers._optuna import OptunaSampler

if TYPE_CHECKING:
    import optuna


class Nsga2(OptunaSampler):
    """Optuna's NSGA-II with a population of 20.

    Source: Deb et al. 2002. A trial's generation follows from its position among the finished ones, so that a proposal
    depends on the history only.
    """

    STARTUP = 20

    def make(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.NSGAIISampler(seed=seed, population_size=self.STARTUP)

    def generation(self, position: int) -> dict[str, Any]:
        import optuna

        return {optuna.samplers.NSGAIISampler._get_generation_key(): position // self.STARTUP}
