"""Successive halving."""

from __future__ import annotations

from dataclasses import dataclass

from slimsearch.strategies.schedulers._cohorts import Cohort, Cohorts
from slimsearch.strategies.schedulers._rungs import rungs
from slimsearch.strategies.schedulers._scheduler import check


@dataclass(frozen=True)
class SuccessiveHalving(Cohorts):
    """Promotes the best 1/eta of a cohort at each rung, once all its trials have reached it.

    Source: Jamieson & Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization". Trials
    continue from their checkpoints, and cohorts follow each other until the budget is spent; several objectives as in
    `order`.

    Attributes:
        eta: one trial in `eta` is promoted.
        min_epochs: the lowest first rung.
        cohort: number of trials that are compared with each other; None for eta**rungs, which leaves one at the end.
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
