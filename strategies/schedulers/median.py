"""Early stopping by the median rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimsearch.strategies.schedulers._combined import EndsTrials
from slimsearch.strategies.schedulers._scheduler import TrialProgress, check, without_nan


@dataclass(frozen=True)
class Median(EndsTrials):
    """Stops a trial when its best loss so far is worse than the median of the complete trials' average losses so far.

    With several objectives, "worse than the median" means "dominated by more than half of the complete trials". Costs
    that are known before training are not averaged, so that only networks as small can dominate a small one.

    Source: Golovin et al. 2017, "Google Vizier", 3.2.2. Difference: the case of several objectives.

    Attributes:
        min_complete: number of complete trials before any is stopped.
        min_epochs: number of epochs before a trial is stopped.
    """

    min_complete: int = 5
    min_epochs: int = 1

    def __post_init__(self) -> None:
        check("min_complete", self.min_complete, 1)
        check("min_epochs", self.min_epochs, 1)

    def hopeless(self, trials: Sequence[TrialProgress], epochs: int) -> set[int]:
        """Numbers of the running and paused trials that are worse than the median."""
        complete = [t for t in trials if t.state == "complete" and t.epochs == epochs]
        if len(complete) < self.min_complete:
            return set()
        curves = without_nan([t.losses for t in complete])  # (complete, epochs, objectives)
        averages = np.cumsum(curves, axis=1) / np.arange(1, epochs + 1)[:, None]
        averages = np.where((curves == curves[:, :1]).all(axis=1, keepdims=True), curves, averages)  # costs stay exact
        feasible = np.array([not t.violation > 0 for t in complete])
        found = set()
        for trial in trials:
            if trial.state in ("running", "paused") and self.min_epochs <= trial.epochs < epochs:
                best, others = without_nan(trial.losses).min(axis=0), averages[:, trial.epochs - 1]
                better = feasible & (others <= best).all(axis=1) & (others < best).any(axis=1)
                if better.sum() > len(complete) / 2:
                    found.add(trial.number)
        return found
