"""Successive halving."""

from __future__ import annotations

from dataclasses import dataclass

from slimsearch.strategies.schedulers._cohorts import Cohort, Cohorts
from slimsearch.strategies.schedulers._rungs import rungs
from slimsearch.strategies.schedulers._scheduler import check


@dataclass(frozen=True)
class SuccessiveHalving(Cohorts):
    """Of each cohort the best 1/eta go on from each rung, when all are there.

    Source: Jamieson & Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization". Trials
    are trained on from their checkpoints, and cohorts follow each other until the budget is used; several objectives
    as in `order`.

    Attributes:
        eta: one trial in `eta` is promoted.
        min_epochs: the lowest first rung.
        cohort: trials that are compared with each other; None: as many as leave one at the end, eta**rungs.
    """

    eta: int = 3
    min_epochs: int = 1
    cohort: int | None = None

    def __post_init__(self) -> None:
        check("eta", self.eta, 2)
        check("min_epochs", self.min_epochs, 1)
        if self.cohort is not None:
            check("cohort", self.cohort, 1)

    def plan(self, epochs: int) -> list[Cohort]:
        steps = tuple(rungs(epochs, self.eta, self.min_epochs))
        return [Cohort(self.cohort or self.eta ** len(steps), steps)]
