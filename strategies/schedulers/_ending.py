"""What schedulers have in common that pause nothing and end for good what is not worth another epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from slimsearch.strategies.schedulers._scheduler import Decision, Progress


class EndsTrials(ABC):
    """Alone such a scheduler trains to the end whatever it does not end; see `combine` for it beside another one."""

    @abstractmethod
    def hopeless(self, trials: Sequence[Progress], epochs: int) -> set[int]:
        """Numbers of the running and paused trials that are to be ended; only complete ones decide it."""

    def after_epoch(self, trial: Progress, trials: Sequence[Progress], epochs: int) -> Decision:
        complete = [t for t in trials if t.state == "complete"]
        return Decision.STOP if self.hopeless([*complete, trial], epochs) else Decision.CONTINUE

    def resume(self, trials: Sequence[Progress], epochs: int, more: bool) -> int | None:
        hopeless = self.hopeless(trials, epochs)
        return min((t.number for t in trials if t.state == "paused" and t.number not in hopeless), default=None)

    def may_begin(self, trials: Sequence[Progress], epochs: int, more: bool) -> bool:
        return more
