"""Gaussian process with expected (hypervolume) improvement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimsearch.strategies.samplers._optuna import OptunaSampler

if TYPE_CHECKING:
    import optuna


class Gp(OptunaSampler):
    """Optuna's GP sampler. A proposal takes hundreds of milliseconds, and more as trials accumulate.

    The sampler often repeats tried points, even on a second draw, so a neighbor replaces them at once.
    """

    STARTUP = 10
    DRAWS = 1

    def make(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.STARTUP)
