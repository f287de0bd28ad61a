"""Schedulers that end hopeless trials for good, and their combination with one that pauses trials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from slimsearch.errors import SlimsearchError
from slimsearch.strategies.schedulers._scheduler import Decision, Exploiting, Scheduler, TrialProgress
from slimsearch.strategies.schedulers.full import Full


@runtime_checkable
class Ending(Protocol):
    """A scheduler that pauses no trial and ends some for good: it can be combined with any other."""

    def hopeless(self, trials: Sequence[TrialProgress], epochs: int) -> Collection[int]:
        """Numbers of the running and paused trials that are not worth another epoch."""


class EndsTrials(ABC):
    """A scheduler that pauses no trial and ends hopeless ones for good; `combine` joins it with another scheduler."""

    @abstractmethod
    def hopeless(self, trials: Sequence[TrialProgress], epochs: int) -> set[int]:
        """Numbers of the running and paused trials to end, judged by the complete ones."""

    def after_epoch(self, trial: TrialProgress, trials: Sequence[TrialProgress], epochs: int) -> Decision:
        complete = [t for t in trials if t.state == "complete"]
        return Decision.STOP if self.hopeless([*complete, trial], epochs) else Decision.CONTINUE

    def resume(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> int | None:
        hopeless = self.hopeless(trials, epochs)
        return min((t.number for t in trials if t.state == "paused" and t.number not in hopeless), default=None)

    def may_begin(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> bool:
        return more


def without_nan(losses: object) -> NDArray[np.float64]:
    """Losses as an array in which NaN counts as infinite."""
    values = np.array(losses, dtype=float)
    values[np.isnan(values)] = np.inf
    return values


@dataclass(frozen=True)
class Combined:
    """`leader` decides which trials pause and resume and when new ones begin; `ending` end trials.

    A running trial that one of `ending` finds hopeless is ended for good; a paused one is not resumed as long as it is
    hopeless, and ranks in its rung as one that was ended.
    """

    leader: Scheduler
    ending: tuple[Scheduler, ...]

    def after_epoch(self, trial: TrialProgress, trials: Sequence[TrialProgress], epochs: int) -> Decision:
        if trial.epochs >= epochs:
            return Decision.CONTINUE
        if any(part.after_epoch(trial, trials, epochs) is Decision.STOP for part in self.ending):
            return Decision.STOP
        return self.leader.after_epoch(trial, self._without_hopeless(trials, epochs), epochs)

    def resume(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> int | None:
        return self.leader.resume(self._without_hopeless(trials, epochs), epochs, more)

    def may_begin(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> bool:
        return self.leader.may_begin(self._without_hopeless(trials, epochs), epochs, more)

    def _without_hopeless(self, trials: Sequence[TrialProgress], epochs: int) -> list[TrialProgress]:
        hopeless = {n for part in self.ending if isinstance(part, Ending) for n in part.hopeless(trials, epochs)}
        return [replace(t, state="stopped") if t.state == "paused" and t.number in hopeless else t for t in trials]


def combine(*schedulers: Scheduler) -> Scheduler:
    """Combine schedulers, in any order: at most one that pauses trials, and any number that only end them.

    A scheduler that only ends trials has a method ``hopeless(trials, epochs)``, as `Dominated` has.

    Raises:
        SlimsearchError: more than one pauses trials, or one of them copies trials.
    """
    ending = tuple(part for part in schedulers if isinstance(part, Ending))
    leaders = [part for part in schedulers if not isinstance(part, Ending)]
    if len(leaders) > 1:
        names = " and ".join(f"'{type(part).__name__}'" for part in leaders)
        raise SlimsearchError(f"schedulers {names} cannot be combined: only one can decide who pauses")
    leader = leaders[0] if leaders else Full()
    if ending and isinstance(leader, Exploiting):
        raise SlimsearchError(f"scheduler '{type(leader).__name__}' cannot be combined: it ends trials by itself")
    return Combined(leader, ending) if ending else leader
