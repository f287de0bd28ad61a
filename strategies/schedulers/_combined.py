"""Schedulers that stop hopeless trials, and their combination with one that pauses trials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from slimsearch.errors import SlimsearchError
from slimsearch.strategies.schedulers._scheduler import Decision, Exploiting, Scheduler, TrialProgress
from slimsearch.strategies.schedulers.full import Full


@runtime_checkable
class Ending(Protocol):
    """A scheduler that stops trials and never pauses one: it can be combined with any other."""

    def hopeless(self, trials: Sequence[TrialProgress], epochs: int) -> Collection[int]:
        """Numbers of the running and paused trials that are not worth another epoch."""


class EndsTrials(ABC):
    """A scheduler that stops hopeless trials and never pauses one; `combine` joins it with another scheduler."""

    @abstractmethod
    def hopeless(self, trials: Sequence[TrialProgress], epochs: int) -> set[int]:
        """Numbers of the running and paused trials to stop, judged by the complete ones."""

    def after_epoch(self, trial: TrialProgress, trials: Sequence[TrialProgress], epochs: int) -> Decision:
        complete = [t for t in trials if t.state == "complete"]
        return Decision.STOP if self.hopeless([*complete, trial], epochs) else Decision.CONTINUE

    def resume(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> int | None:
        hopeless = self.hopeless(trials, epochs)
        return min((t.number for t in trials if t.state == "paused" and t.number not in hopeless), default=None)

    def may_begin(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> bool:
        return more


@dataclass(frozen=True)
class Combined:
    """`leader` decides which trials pause and resume, and when new ones begin; `ending` stop trials.

    A running trial that one of `ending` finds hopeless is stopped; a paused one is not resumed while it is hopeless,
    and ranks in its rung as a stopped one.
    """

    leader: Scheduler
    ending: tuple[Scheduler, ...]

    def after_epoch(self, trial: TrialProgress, trials: Sequence[TrialProgress], epochs: int) -> Decision:
        if trial.epochs >= epochs:
            return Decision.CONTINUE
        if any(one.after_epoch(trial, trials, epochs) is Decision.STOP for one in self.ending):
            return Decision.STOP
        return self.leader.after_epoch(trial, self._without_hopeless(trials, epochs), epochs)

    def resume(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> int | None:
        return self.leader.resume(self._without_hopeless(trials, epochs), epochs, more)

    def may_begin(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> bool:
        return self.leader.may_begin(self._without_hopeless(trials, epochs), epochs, more)

    def _without_hopeless(self, trials: Sequence[TrialProgress], epochs: int) -> list[TrialProgress]:
        hopeless = {n for one in self.ending if isinstance(one, Ending) for n in one.hopeless(trials, epochs)}
        return [replace(t, state="stopped") if t.state == "paused" and t.number in hopeless else t for t in trials]


def combine(*schedulers: Scheduler) -> Scheduler:
    """Combine schedulers, in any order: at most one that pauses trials, and any number that only stop them.

    A scheduler that only stops trials has a method ``hopeless(trials, epochs)``, like `Dominated`.

    Raises:
        SlimsearchError: more than one pauses trials, or one of them copies trials.
    """
    ending = tuple(one for one in schedulers if isinstance(one, Ending))
    leaders = [one for one in schedulers if not isinstance(one, Ending)]
    if len(leaders) > 1:
        names = " and ".join(f"'{type(one).__name__}'" for one in leaders)
        raise SlimsearchError(f"schedulers {names} cannot be combined: at most one may pause trials")
    leader = leaders[0] if leaders else Full()
    if ending and isinstance(leader, Exploiting):
        raise SlimsearchError(f"scheduler '{type(leader).__name__}' cannot be combined: it ends trials by itself")
    return Combined(leader, ending) if ending else leader
