"""Multivariate tree-structured Parzen estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimsearch.strategies.samplers._optuna import OptunaSampler

if TYPE_CHECKING:
    import optuna


class Tpe(OptunaSampler):
    """Optuna's TPE, multivariate, with running trials counted as bad ones.

    Source: Bergstra et al. 2011; several objectives after Ozaki et al. 2022. Multivariate, since the univariate form
    repeats points in a categorical space.
    """

    STARTUP = 10

    def make(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, constant_liar=True, n_startup_trials=self.STARTUP
        )
