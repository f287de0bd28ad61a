"""Multivariate tree-structured Parzen estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Point, Space
from slimsearch.strategies.samplers import _optuna
from slimsearch.strategies.samplers._sampler import History

if TYPE_CHECKING:
    import optuna


class Tpe:
    """Optuna's TPE, with all choices modelled together and running trials counted as bad ones.

    Source: Bergstra et al. 2011; several objectives after Ozaki et al. 2022. Multivariate, since in a categorical
    space the univariate form proposes the same points again and again. A proposal that was tried gives way to another,
    the third to a neighbour.
    """

    STARTUP = 10

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        return _optuna.propose_new(self._make, space, objectives, history, rng, startup=self.STARTUP)

    def _make(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, constant_liar=True, n_startup_trials=self.STARTUP
        )
