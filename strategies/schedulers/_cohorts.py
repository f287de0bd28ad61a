"""Synchronous halving: successive cohorts of trials, each reduced at every rung."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from slimsearch.strategies.schedulers._rungs import pause_unless_next, ranked
from slimsearch.strategies.schedulers._scheduler import Decision, TrialProgress


@dataclass(frozen=True)
class Cohort:
    """A group of trials that are compared with each other.

    Attributes:
        size: number of trials.
        rungs: the epochs after which they are compared, ascending, all below the full number of epochs.
    """

    size: int
    rungs: tuple[int, ...]


class Cohorts(ABC):
    """A scheduler that halves cohorts.

    Trials are assigned by number to the cohorts of the plan, which repeats. A cohort begins when the one before it is
    complete. A rung is decided when all trials of the cohort have reached it: of a cohort of n, the best n // eta**k,
    at least one, are promoted from its k-th rung. The next trial replaces a failed one; a stopped one stays and ranks
    last. The last cohort is decided with the trials that it has when no more can begin.
    """

    eta: int

    @abstractmethod
    def plan(self, epochs: int) -> Sequence[Cohort]:
        """The cohorts of one round; at least one."""

    def after_epoch(self, trial: TrialProgress, trials: Sequence[TrialProgress], epochs: int) -> Decision:
        plan = self.plan(epochs)
        if trial.epochs >= epochs or not any(trial.epochs in cohort.rungs for cohort in plan):
            return Decision.CONTINUE
        earlier = sum(t.number < trial.number for t in trials)
        if trial.epochs not in _cohort_at(plan, earlier).rungs:
            return Decision.CONTINUE
        return pause_unless_next(self, trial, trials, epochs)

    def resume(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> int | None:
        for cohort, members in _dealt(self.plan(epochs), trials):
            number = self._promotion(cohort, members, epochs, more)
            if number is not None:
                return number
        return None

    def may_begin(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> bool:
        if not more:
            return False
        return all(
            len(members) < cohort.size
            or not (
                any(t.state == "running" for t in members) or self._promotion(cohort, members, epochs, more) is not None
            )
            for cohort, members in _dealt(self.plan(epochs), trials)
        )

    def _promotion(self, cohort: Cohort, members: Sequence[TrialProgress], epochs: int, more: bool) -> int | None:
        steps = [*cohort.rungs, epochs]
        below = [t.number for t in members if t.state == "paused" and t.epochs < steps[0]]
        if below:  # paused by another scheduler, before the run was resumed
            return min(below)
        if more and len(members) < cohort.size:
            return None
        for k, (rung, after) in enumerate(itertools.pairwise(steps), start=1):
            if any(t.state == "running" and t.epochs < rung for t in members):
                return None
            if not any(t.state == "paused" and rung <= t.epochs < after for t in members):
                continue
            for trial in ranked(members, rung)[: max(1, len(members) // self.eta**k)]:
                if trial.state == "paused" and trial.epochs < after:
                    return trial.number
        return None


def _cohort_at(plan: Sequence[Cohort], position: int) -> Cohort:
    position %= sum(cohort.size for cohort in plan)
    for cohort in plan:
        if position < cohort.size:
            return cohort
        position -= cohort.size
    raise AssertionError("a plan is not empty")


def _dealt(plan: Sequence[Cohort], trials: Sequence[TrialProgress]) -> Iterator[tuple[Cohort, list[TrialProgress]]]:
    """The cohorts that have begun, with their members."""
    by_number = sorted(trials, key=lambda t: t.number)
    position = 0
    for cohort in itertools.cycle(plan):
        if position >= len(by_number):
            return
        yield cohort, by_number[position : position + cohort.size]
        position += cohort.size
