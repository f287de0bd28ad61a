"""Early stopping by the median rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimsearch.strategies.schedulers._combined import EndsTrials, without_nan
from slimsearch.strategies.schedulers._scheduler import TrialProgress, check


@dataclass(frozen=True)
class Median(EndsTrials):
    """Ends a trial for good when its best so far is worse than the median of the others' averages so far.

    The others are the complete trials, each with the average of its losses up to the same epoch. With several
    objectives "worse than the median" is "dominated by more than half of them", which is the same with one; costs that
    are known before training count as they are, so that a smaller network is ended only for those as small.

    Source: Golovin et al. 2017, "Google Vizier", 3.2.2; what differs is the case of several objectives.

    Attributes:
        min_complete: complete trials that are needed.
        min_epochs: nothing is ended before so many.
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
        kept = np.array([not t.violation > 0 for t in complete])
        found = set()
        for trial in trials:
            if trial.state in ("running", "paused") and self.min_epochs <= trial.epochs < epochs:
                best, others = without_nan(trial.losses).min(axis=0), averages[:, trial.epochs - 1]
                better = kept & (others <= best).all(axis=1) & (others < best).any(axis=1)
                if better.sum() > len(complete) / 2:
                    found.add(trial.number)
        return found
