"""Proposers: algorithms with hidden state, NNI's strategies and Ray Tune's searchers, that replace the run's sampler.

A search with a proposer keeps to the laws of the record alone: a result is recorded once, and a candidate that is
recorded already is answered from the record. With the same seed, a resumed run proposes the same candidates again,
which rebuilds the proposer's state without evaluating anything twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Outcome, Task
from slimsearch.search_spaces import Point, Space
from slimsearch.strategies._strategy import Failure, Figures, Search

_log = logging.getLogger(__name__)

_PATIENCE = 200
"""Number of successive proposals without a new candidate after which a proposer is not asked again."""


class Exhausted(Exception):
    """A proposer has nothing more to propose."""


class Proposer(Protocol):
    """Proposes points one at a time, and learns from their results."""

    @property
    def name(self) -> str:
        """For messages."""

    def propose(self, key: str) -> Point | None:
        """A point, whose result is told under `key`; None: it waits for results, and is asked with `key` again.

        Raises:
            Exhausted: there are no more.
            SlimsearchError: it failed.
        """

    def tell(self, key: str, losses: tuple[float, ...] | None) -> None:
        """The result of the point proposed under `key`, less is better; None: it failed or was ruled out."""

    def close(self) -> None:
        """It is not asked again."""


class ProposerSearch:
    """A search whose tasks are followed by those that a proposer offers to it, until both have nothing left.

    A proposal equal to a candidate that is being evaluated shares its trial. A result is told when it is final: a
    trial that is tried again or is paused has none yet.

    Args:
        search: its own tasks come first.
        proposer: is not closed here.
        space: of the proposals; equal ones are recognized in it.
    """

    def __init__(self, search: Search, proposer: Proposer, space: Space) -> None:
        self._search, self._proposer, self._space = search, proposer, space
        self._open = True
        self._proposals = 0
        self._fruitless = 0
        self._offered: set[str] = set()  # keys of candidates
        self._running: set[int] = set()
        self._trials: dict[str, int] = {}  # key of a candidate without a final result -> its trial
        self._keys: dict[int, list[str]] = {}  # trial without a final result -> the proposals that wait for it

    def ask(self) -> Task | None:
        """The next task, see `TaskSource`."""
        task = self._search.ask()
        if task is None and self._open:
            task = self._propose()
        if task is not None:
            self._running.add(task.number)
            self._trials[task.candidate.key] = task.number
            self._keys.setdefault(task.number, [])
        return task

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Progress of a running task, see `TaskSource`."""
        return self._search.report(number, epoch, metrics)

    def tell(self, number: int, result: Outcome | Failure) -> None:
        """The result of a task, see `TaskSource`."""
        self._search.tell(number, result)
        self._running.discard(number)
        if not self._keys.get(number):
            self._finish(number, None)
        elif (recorded := self._search.recorded(number)) is not None:
            self._finish(number, recorded.losses)

    def figures(self) -> Figures:
        """How the run stands, see `TaskSource`."""
        return self._search.figures()

    def _finish(self, number: int, losses: tuple[float, ...] | None) -> None:
        """Answer the proposals that wait for a trial."""
        self._trials = {key: other for key, other in self._trials.items() if other != number}
        for key in self._keys.pop(number, ()):
            self._proposer.tell(key, losses)

    def _propose(self) -> Task | None:
        """The task of the next new proposal, or what the search has after the last one; None: nothing now."""
        while self._fruitless < _PATIENCE:
            key = f"proposal-{self._proposals}"
            try:
                point = self._proposer.propose(key)
            except Exhausted:
                return self._close()
            if point is None:
                if self._running:
                    return None
                if not self._keys:
                    _log.warning("%s ends: it waits for results, and no trial is running", self._proposer.name)
                    return self._close()
                for number in list(self._keys):  # paused trials: nothing else would ever happen
                    self._finish(number, None)
                continue
            self._proposals += 1
            self._fruitless += 1
            answer = self._offer(key, point)
            if answer is not None:
                return answer
            if not self._open:
                return None
        if self._running:  # their results may lead the proposer elsewhere
            self._fruitless = 0
            return None
        _log.warning("%s ends: its last %d proposals were nothing new", self._proposer.name, _PATIENCE)
        return self._close()

    def _offer(self, key: str, point: Point) -> Task | None:
        """The task of a proposal; None: it was answered, shares a trial, or nothing is left."""
        try:
            candidate = self._space.candidate(point).key
        except SlimsearchError:  # a proposer need not know all constraints of the space
            self._proposer.tell(key, None)
            return None
        if candidate in self._trials:
            self._keys[self._trials[candidate]].append(key)
            return None
        answer = self._search.offer(point)
        if answer is None:
            return self._close()
        if candidate not in self._offered:
            self._fruitless = 0  # new, or recorded by an earlier part of this run
            self._offered.add(candidate)
        if isinstance(answer, Task):
            self._keys[answer.number] = [key]
            return answer
        self._proposer.tell(key, answer.losses)
        return None

    def _close(self) -> Task | None:
        """End the proposals; the search may have further tasks of its own."""
        self._open = False
        self._search.close()
        return self._search.ask()
