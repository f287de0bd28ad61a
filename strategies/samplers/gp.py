"""Gaussian process with expected (hypervolume) improvement."""

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


class Gp:
    """Optuna's GP sampler. A proposal costs hundreds of milliseconds and more as trials add up.

    It often proposes what was tried, and does so again when it is asked again: a neighbour is taken then.
    """

    STARTUP = 10

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        return _optuna.propose_new(self._make, space, objectives, history, rng, startup=self.STARTUP, draws=1)

    def _make(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.STARTUP)
