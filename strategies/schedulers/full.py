"""No early stopping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slimsearch.strategies.schedulers._scheduler import Decision, TrialProgress


@dataclass(frozen=True)
class Full:
    """Every trial is trained to the end."""

    def after_epoch(self, trial: TrialProgress, trials: Sequence[TrialProgress], epochs: int) -> Decision:
        return Decision.CONTINUE

    def resume(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> int | None:
        # Trials are paused only by another scheduler, before the run was resumed.
        return min((t.number for t in trials if t.state == "paused"), default=None)

    def may_begin(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> bool:
        return more
