"""Multivariate tree-structured Parzen estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from evaluators import Objective
from search_spaces import Point, Space
from strategies.samplers import _optuna
from strategies.samplers._pareto import new_point
from strategies.samplers._sampler import History

if TYPE_CHECKING:
    import optuna

# Each draw makes a study from the history.
_DRAWS = 3


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
        if history.finished_count < self.STARTUP:
            return new_point(space, history, lambda: space.sample(rng), rng)

        def draw() -> Point:
            return _optuna.propose(self._make, space, objectives, history, rng)

        return new_point(space, history, draw, rng, _DRAWS)

    def _make(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, constant_liar=True, n_startup_trials=self.STARTUP
        )
