"""Population based training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces import Choice, Point
from slimsearch.strategies.schedulers._rungs import ranked
from slimsearch.strategies.schedulers._scheduler import Decision, TrialProgress, check


@dataclass(frozen=True)
class Pbt:
    """Changes hyper-parameters during training: copies of the best trials replace the worst ones.

    The population is all trials of the search. All train `interval` epochs and wait for each other; then each of the
    worst is stopped and replaced by a copy of one of the best, with the same weights and other hyper-parameters. A copy
    is a trial with the same architecture, and is not charged to the budget.

    Source: Jaderberg et al. 2017, in its synchronous form; several objectives as in `order`.

    Attributes:
        interval: epochs between two comparisons.
        quantile: share of the population that is replaced each time, at least one, in (0, 0.5].
        resample: probability that a copy's hyper-parameter is redrawn; otherwise it moves to an adjacent value.
    """

    interval: int = 2
    quantile: float = 0.25
    resample: float = 0.25

    def __post_init__(self) -> None:
        check("interval", self.interval, 1)
        for name, most in (("quantile", 0.5), ("resample", 1.0)):
            check(name, getattr(self, name), 0, float)
            if not getattr(self, name) <= most:
                raise SlimsearchError(f"{name}={getattr(self, name)} is above {most:g}")

    def after_epoch(self, trial: TrialProgress, trials: Sequence[TrialProgress], epochs: int) -> Decision:
        compared = trial.epochs < epochs and trial.epochs % self.interval == 0
        return Decision.PAUSE if compared else Decision.CONTINUE

    def exploit(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> tuple[int, int] | None:
        """See `Exploiting`; called before `resume`, until it returns None."""
        paused_at = {t.epochs for t in trials if t.state == "paused"}
        if more or len(paused_at) != 1 or any(t.state == "running" for t in trials):
            return None
        order, best, replaced, count = self._rung(trials, paused_at.pop())
        if replaced >= count:
            return None
        return order[-1].number, best[replaced % min(count, len(best) - 1)].number

    def resume(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> int | None:
        waiting = [t for t in trials if t.state == "paused"]
        if not waiting or more:
            return None
        epoch = min(t.epochs for t in waiting)
        _, _, replaced, count = self._rung(trials, epoch)
        # A trial that has just reached the rung still counts as running; after the exploits it has been resumed.
        least = epoch if replaced < count else epoch - 1
        if any(t.state == "running" and t.epochs <= least for t in trials):
            return None
        return min(t.number for t in waiting if t.epochs == epoch)

    def _rung(
        self, trials: Sequence[TrialProgress], epoch: int
    ) -> tuple[list[TrialProgress], list[TrialProgress], int, int]:
        """Trials at `epoch`, best first; these without copies; numbers of replaced trials and of trials to replace."""
        order = ranked(trials, epoch)
        best = list({t.losses[epoch - 1]: t for t in reversed(order)}.values())[::-1]
        count = max(int(self.quantile * len(order)), min(1, len(order) // 2)) if len(best) > 1 else 0
        return order, best, sum(t.state == "stopped" and t.epochs == epoch for t in trials), count

    def may_begin(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> bool:
        return more

    def perturbed(self, choices: Iterable[Choice], point: Point, rng: np.random.Generator) -> dict[str, Any]:
        """`point` with other values of `choices`: adjacent or redrawn."""
        changed = dict(point)
        for choice in choices:
            last = len(choice.values) - 1
            if last == 0:
                continue
            if rng.random() < self.resample:
                position = int(rng.integers(last + 1))
            else:
                before, step = choice.index(point[choice.label]), 1 if rng.random() < 0.5 else -1
                position = before + (step if 0 <= before + step <= last else -step)  # a copy must differ
            changed[choice.label] = choice.values[position]
        return changed
