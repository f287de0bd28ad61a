"""Proposers: algorithms with hidden state (NNI's strategies, Ray Tune's searchers) that replace the run's sampler.

Each result is recorded once, and a candidate that is already recorded is answered from the record. With the same seed,
a resumed run proposes the same candidates again: this restores the proposer's state without repeating evaluations.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Outcome, Task
from slimsearch.search_spaces import Point, Space
from slimsearch.strategies._strategy import Failure, Recorded, RunStatus, Search

_log = logging.getLogger(__name__)

_PATIENCE = 200
"""Number of successive proposals without a new candidate after which a proposer ends."""


_NO_RESULT = Recorded({}, None)  # of a trial that does not end


class Exhausted(Exception):
    """A proposer has no further proposals."""


class Proposer(Protocol):
    """Proposes points one at a time, and learns from their results."""

    @property
    def name(self) -> str:
        """Name of the algorithm, for messages."""

    def propose(self, key: str) -> Point | None:
        """The next point, whose result `tell` gives under the same `key`.

        Returns:
            None if the proposer waits for results; it is then asked again with the same `key`.

        Raises:
            Exhausted: there are no further proposals.
            SlimsearchError: the algorithm failed.
        """

    def tell(self, key: str, losses: tuple[float, ...] | None, *, failed: bool = False) -> None:
        """The result of the point proposed under `key`.

        Args:
            key: see `propose`.
            losses: less is better; None if it failed, was ruled out or stopped early.
            failed: whether its evaluation failed, which says nothing about the point's worth.
        """

    def close(self) -> None:
        """Release resources after the last proposal."""


class ProposerSearch:
    """A task source that gives the tasks of a search first, then those of a proposer's candidates.

    A proposal equal to a candidate under evaluation shares its trial. The proposer gets final results only, not those
    of a trial that is paused or will be retried.

    Args:
        search: takes the proposals.
        proposer: makes them; the caller closes it.
        space: of the proposals; its canonical points tell which proposals are equal.
    """

    def __init__(self, search: Search, proposer: Proposer, space: Space) -> None:
        self._search, self._proposer, self._space = search, proposer, space
        self._open = True
        self._proposals = 0
        self._without_new = 0  # successive proposals without a new candidate
        self._offered: set[str] = set()  # keys of candidates
        self._running: set[int] = set()
        self._trials: dict[str, int] = {}  # key of a candidate without a final result -> its trial
        self._keys: dict[int, list[str]] = {}  # trial without a final result -> keys of its proposals

    def ask(self) -> Task | None:
        """See `TaskSource`."""
        task = self._search.ask()
        if task is None and self._open:
            task = self._propose()
        if task is not None:
            self._running.add(task.number)
            self._trials[task.candidate.key] = task.number
            self._keys.setdefault(task.number, [])
        return task

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """See `TaskSource`."""
        return self._search.report(number, epoch, metrics)

    def tell(self, number: int, result: Outcome | Failure) -> None:
        """See `TaskSource`."""
        self._search.tell(number, result)
        self._running.discard(number)
        recorded = self._search.recorded(number) if self._keys.get(number) else _NO_RESULT
        if recorded is not None:
            self._finish(number, recorded)

    def status(self) -> RunStatus:
        """See `TaskSource`."""
        return self._search.status()

    def _finish(self, number: int, recorded: Recorded) -> None:
        """Tell the proposer the result of all its proposals that share a trial."""
        self._trials = {key: other for key, other in self._trials.items() if other != number}
        for key in self._keys.pop(number, ()):
            self._tell(key, recorded)

    def _tell(self, key: str, recorded: Recorded) -> None:
        failed = recorded.losses is None and not recorded.metrics
        self._proposer.tell(key, recorded.losses, failed=failed and recorded is not _NO_RESULT)

    def _propose(self) -> Task | None:
        """The task of the next new proposal, or of the search after the last one; None if there is none now."""
        while self._without_new < _PATIENCE:
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
                for number in list(self._keys):  # paused trials, which nothing would resume
                    self._finish(number, _NO_RESULT)
                continue
            self._proposals += 1
            self._without_new += 1
            answer = self._offer(key, point)
            if answer is not None:
                return answer
            if not self._open:
                return None
        if self._running:  # their results may change the proposals
            self._without_new = 0
            return None
        _log.warning("%s ends: its last %d proposals were nothing new", self._proposer.name, _PATIENCE)
        return self._close()

    def _offer(self, key: str, point: Point) -> Task | None:
        """The task of a proposal; None if it was answered or shares a trial, or if the budget is spent."""
        try:
            point = self._space.confirmed(self._space.canonical(point))
            candidate = self._space.candidate(point).key
        except SlimsearchError:  # a proposer need not know all constraints of the space
            self._proposer.tell(key, None, failed=True)
            return None
        if candidate in self._trials:
            self._keys[self._trials[candidate]].append(key)
            return None
        answer = self._search.offer(point)
        if answer is None:
            return self._close()
        if candidate not in self._offered:
            self._without_new = 0  # new, or recorded before the run was resumed
            self._offered.add(candidate)
        if isinstance(answer, Task):
            self._keys[answer.number] = [key]
            return answer
        if answer.running is not None:  # paused, or interrupted in an earlier process
            self._trials[candidate] = answer.running
            self._keys.setdefault(answer.running, []).append(key)
        else:
            self._tell(key, answer)
        return None

    def _close(self) -> Task | None:
        """End the proposals; returns the next of the search's own tasks."""
        self._open = False
        self._search.close()
        return self._search.ask()
