"""Strategies that propose by themselves: what they offer is evaluated by our workers and recorded by the search.

They keep hidden state, so of the laws they obey those of the record alone: a result is recorded once, and what the
record has is answered from it. With the same seed a resumed run offers the same candidates again, which rebuilds that
state from the record without evaluating anything twice.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Evaluator, Task
from slimsearch.search_spaces import ModelSpace, Point, Space
from slimsearch.strategies._nni.exchange import Proposals, Result
from slimsearch.strategies._pool.workers import Done, Workers
from slimsearch.strategies._strategy import Search, StrategySettings, Traits, space_of

_log = logging.getLogger(__name__)

# So many proposals in a row that lead to nothing new end the search.
_PATIENCE = 200


@dataclass
class MultiTrial(ABC):
    """An NNI strategy that learns from finished trials, one value each: the search's score, of which more is better.

    With one worker, the same seed and the same results give the same proposals.
    """

    NAME: ClassVar[str]
    traits: ClassVar[Traits] = Traits(proposes=True)

    settings: StrategySettings

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate what `search` asks for and what NNI proposes.

        Raises:
            SlimsearchError: the space cannot be searched by this strategy, or NNI gave up.
            KeyboardInterrupt: after the workers were stopped.
        """
        space = space_of(self.NAME, evaluator)
        from slimsearch.strategies._nni import proposals as _nni_proposals

        mutables, point_of = _nni_proposals.mutables(space)
        proposals = _nni_proposals.proposals(self.NAME, self._strategy(mutables), mutables, point_of)
        with Workers(self.settings.local_workers, self.settings.trial_timeout, evaluator) as workers:
            Drive(self.NAME, search, workers, space).run(proposals)

    @abstractmethod
    def _strategy(self, mutables: dict[str, Any]) -> Any:
        """The NNI strategy, for choices that are NNI's `Categorical`, with constraints among them.

        Raises:
            SlimsearchError: it cannot search these.
        """


class Drive:
    """Evaluates what a search hands out and what somebody proposes, until both have nothing left.

    Args:
        name: of the strategy, for what is logged.
        search, workers: where tasks come from, and where they are evaluated.
        space: in which equal proposals are recognised.
    """

    def __init__(self, name: str, search: Search, workers: Workers, space: Space) -> None:
        self._name, self._search, self._workers, self._space = name, search, workers, space
        self._proposed = 0
        self._seen: set[str] = set()
        self._fruitless = 0
        self._number: dict[str, int] = {}  # key of a candidate being evaluated -> its trial
        self._asking: dict[int, list[int]] = {}  # trial -> the proposals that it answers
        self._told: list[int] = []  # trials at their end, unless the search hands them out once more
        self._results: list[Result] = []

    def run(self, proposals: Proposals) -> None:
        """Evaluate all `proposals` that the budget allows, close the search for more, and see to the rest of it."""
        try:
            more = self._advance(proposals, first=True)
            while more:
                more = self._advance(proposals)
        finally:
            proposals.close()
        self._search.close()
        self.drain()

    def drain(self) -> None:
        """Evaluate what the search hands out of its own."""
        while self._hand_out():
            self._listen()

    def _hand_out(self) -> bool:
        """Keep the workers busy; whether anything is running."""
        while self._workers.free and (task := self._search.ask()) is not None:
            if task.number in self._told:
                self._told.remove(task.number)  # its worker died; it is tried again
            self._submit(task, task.candidate.key)
        return self._workers.busy

    def _submit(self, task: Task, key: str) -> None:
        self._number[key] = task.number
        self._asking.setdefault(task.number, [])
        self._workers.submit(task)

    def _listen(self) -> None:
        event = self._workers.wait()
        if isinstance(event, Done):
            self._search.tell(event.number, event.result)
            self._told.append(event.number)
        else:
            event.answer(self._search.report(event.number, event.epoch, event.metrics))

    def _advance(self, proposals: Proposals, first: bool = False) -> bool:
        """One proposal, when a worker is free for it; whether there may be another."""
        self._hand_out()
        while not self._workers.free:
            self._listen()
            self._hand_out()
        # A worker is free, so the search had nothing more to hand out: what was told is final.
        for number in self._told:
            if asking := self._asking.pop(number):
                score = _score(self._search.losses(number))
                self._results += [(proposal, score) for proposal in asking]
            self._number = {key: n for key, n in self._number.items() if n != number}
        self._told, results, self._results = [], self._results, []
        try:
            point = next(proposals) if first else proposals.send(results)
        except StopIteration:
            return False
        if point is not None:
            return self._offer(point)
        if not self._results:
            assert self._workers.busy, "a strategy waits for results, and nothing is running"
            self._listen()
        return True

    def _offer(self, point: Point) -> bool:
        """Whether the budget has room for another."""
        proposal, self._proposed = self._proposed, self._proposed + 1
        self._fruitless += 1
        try:
            key = self._space.candidate(point).key
        except SlimsearchError:  # the strategy does not see all of the space's own rules
            self._results.append((proposal, None))
            return self._patient()
        if key in self._number:
            self._asking[self._number[key]].append(proposal)
            return self._patient()
        answer = self._search.offer(point)
        if answer is None:
            return False
        if isinstance(answer, Task):
            self._submit(answer, key)
            self._asking[answer.number].append(proposal)
            self._fruitless = 0
        else:
            self._results.append((proposal, _score(answer.losses)))
            if key not in self._seen:
                self._fruitless = 0  # recorded by an earlier part of this run
        self._seen.add(key)
        return self._patient()

    def _patient(self) -> bool:
        if self._fruitless < _PATIENCE:
            return True
        _log.warning("%s ends: its last %d proposals were nothing new", self._name, self._fruitless)
        return False


def _score(losses: tuple[float, ...] | None) -> float | None:
    """What NNI takes: one value, of which more is better."""
    return None if losses is None else -losses[0]


def space_name(space: Space) -> str:
    """What a user calls `space`."""
    return space.space_class.__name__ if isinstance(space, ModelSpace) else "the space"
