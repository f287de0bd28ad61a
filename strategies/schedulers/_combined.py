"""Several schedulers as one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from slimsearch.errors import SlimsearchError
from slimsearch.strategies.schedulers._scheduler import Decision, Exploiting, Progress, Scheduler
from slimsearch.strategies.schedulers.full import Full


@runtime_checkable
class Ending(Protocol):
    """A scheduler that pauses nothing and ends trials for good: it can be added to any other."""

    def hopeless(self, trials: Sequence[Progress], epochs: int) -> Collection[int]:
        """Numbers of the running and paused trials that are not worth another epoch."""


@dataclass(frozen=True)
class Combined:
    """`leader` decides who pauses, who goes on and when new trials begin; `ending` take trials from it.

    A running trial that one of `ending` finds hopeless is ended for good; a paused one is kept from being resumed for
    as long as it is hopeless, and ranks in its rung as one that was ended.
    """

    leader: Scheduler
    ending: tuple[Scheduler, ...]

    def after_epoch(self, trial: Progress, trials: Sequence[Progress], epochs: int) -> Decision:
        if trial.epochs >= epochs:
            return Decision.CONTINUE
        if any(part.after_epoch(trial, trials, epochs) is Decision.STOP for part in self.ending):
            return Decision.STOP
        return self.leader.after_epoch(trial, self._seen(trials, epochs), epochs)

    def resume(self, trials: Sequence[Progress], epochs: int, more: bool) -> int | None:
        return self.leader.resume(self._seen(trials, epochs), epochs, more)

    def may_begin(self, trials: Sequence[Progress], epochs: int, more: bool) -> bool:
        return self.leader.may_begin(self._seen(trials, epochs), epochs, more)

    def _seen(self, trials: Sequence[Progress], epochs: int) -> list[Progress]:
        hopeless = {n for part in self.ending if isinstance(part, Ending) for n in part.hopeless(trials, epochs)}
        return [replace(t, state="stopped") if t.state == "paused" and t.number in hopeless else t for t in trials]


def combine(*schedulers: Scheduler) -> Scheduler:
    """One scheduler of several, in any order: at most one that pauses trials, and any number that only end them.

    What only ends trials has a method ``hopeless(trials, epochs)``, as `Dominated` has.

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
