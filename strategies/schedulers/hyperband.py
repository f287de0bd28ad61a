"""Hyperband."""

from __future__ import annotations

from dataclasses import dataclass

from slimsearch.strategies.schedulers._cohorts import Cohort, Cohorts
from slimsearch.strategies.schedulers._rungs import rungs
from slimsearch.strategies.schedulers._scheduler import check


@dataclass(frozen=True)
class Hyperband(Cohorts):
    """Brackets of successive halving, from many trials with a low first rung to a few that are all trained fully.

    Source: Li et al. 2018, "Hyperband: a novel bandit-based approach to hyperparameter optimization", Algorithm 1:
    bracket s begins with ceil((s_max + 1) / (s + 1) * eta**s) trials, and the rungs are those of `rungs`. Trials
    continue from their checkpoints, and the brackets repeat until the budget is spent; several objectives as in
    `order`.

    Attributes:
        eta: one trial in `eta` is promoted.
        min_epochs: the lowest first rung.
    """

    eta: int = 3
    min_epochs: int = 1

    def __post_init__(self) -> None:
        check("eta", self.eta, 2)
        check("min_epochs", self.min_epochs, 1)

    def plan(self, epochs: int) -> list[Cohort]:
        steps = rungs(epochs, self.eta, self.min_epochs)
        most = len(steps)
        return [
            Cohort(-(-(most + 1) * self.eta**s // (s + 1)), tuple(steps[most - s :]))  # divided, rounded up
            for s in range(most, -1, -1)
        ]
