"""Early stopping of trials whose optimistic outcome is dominated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.strategies.schedulers._combined import EndsTrials
from slimsearch.strategies.schedulers._scheduler import TrialProgress, check, without_nan


@dataclass(frozen=True)
class Dominated(EndsTrials):
    """Stops a trial when its optimistic outcome is dominated by a complete trial.

    The optimistic outcome is, in each objective, the trial's best loss so far, minus the largest gain of any complete
    trial from its best loss by that epoch to its last loss, minus `margin` standard deviations of those gains. A cost
    that is known before training is the same after every epoch, so its gain is 0 and its value exact. With one
    objective, "dominated" means "worse than the best".

    No trial is stopped before `min_complete` trials are complete, nor in the first `warm_up` of the epochs: while the
    learning rate rises, slow starters look worse than they are.

    Alone, it trains all other trials to the end. Combined with another scheduler (see `combine`), that one decides
    which trials pause, and a hopeless paused trial is not resumed. With a halving scheduler it saves little, since the
    complete trials began better than most and gained less; with one objective, `margin` 2 is safer there.

    Source: none. Like Domhan et al. 2015, it stops trials that will not beat the best, but with the largest gain so far
    in place of an extrapolated curve, and with exact costs.

    Attributes:
        margin: standard deviations on top of the largest gain.
        min_complete: number of complete trials before any is stopped, at least 5.
        warm_up: share of the epochs in which no trial is stopped, below 1.
    """

    margin: float = 1.0
    min_complete: int = 10
    warm_up: float = 0.25

    def __post_init__(self) -> None:
        check("margin", self.margin, 0, float)
        check("min_complete", self.min_complete, 5)
        check("warm_up", self.warm_up, 0, float)
        if self.warm_up >= 1:
            raise SlimsearchError(f"warm_up={self.warm_up:g} is not below 1")

    def hopeless(self, trials: Sequence[TrialProgress], epochs: int) -> set[int]:
        """Numbers of the running and paused trials whose optimistic outcome is dominated."""
        under_way = [
            t for t in trials if t.state in ("running", "paused") and self.warm_up * epochs < t.epochs < epochs
        ]
        complete = [t for t in trials if t.state == "complete" and t.epochs == epochs]
        if not under_way or len(complete) < self.min_complete:
            return set()
        curves = without_nan([t.losses for t in complete])  # (complete, epochs, objectives)
        ends = curves[:, -1]
        best = np.minimum.accumulate(curves, axis=1)
        finite = np.isfinite(best) & np.isfinite(ends)[:, None]
        gains = np.subtract(best, ends[:, None], out=np.zeros_like(best), where=finite)
        reach = gains.max(axis=0).clip(min=0) + self.margin * gains.std(axis=0, ddof=1)  # (epochs, objectives)
        feasible = ends[[not t.violation > 0 for t in complete]]
        found = set()
        for trial in under_way:
            optimistic = without_nan(trial.losses).min(axis=0) - reach[trial.epochs - 1]
            if ((feasible <= optimistic).all(axis=1) & (feasible < optimistic).any(axis=1)).any():
                found.add(trial.number)
        return found
