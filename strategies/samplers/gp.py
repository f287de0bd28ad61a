"""Gaussian process with expected (hypervolume) improvement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimsearch.strategies.samplers._optuna import OptunaSampler

if TYPE_CHECKING:
    import optuna


class Gp(OptunaSampler):
    """Optuna's GP sampler. A proposal takes hundreds of milliseconds, and longer as trials add up.

    It often proposes tried points, again when it is asked again: a neighbour is taken at once.
    """

    STARTUP = 10
    DRAWS = 1

    def make(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.STARTUP)
