"""One phase of a run after the other, as the one search that a strategy sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from evaluators import Outcome, Task
from strategies import Failure, Search


class Phases:
    """Asks the phases in turn; the next one is made when the one before has nothing left and nothing running.

    Args:
        phases: makers, each called when its turn comes.
    """

    def __init__(self, phases: Iterator[Callable[[], Search]]) -> None:
        self._rest = phases
        self._current: Search | None = None
        self._running: set[int] = set()

    def ask(self) -> Task | None:
        while True:
            task = self._current.ask() if self._current is not None else None
            if task is not None:
                self._running.add(task.number)
                return task
            if self._running:
                return None
            make = next(self._rest, None)
            if make is None:
                return None
            self._current = make()

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        assert self._current is not None
        return self._current.report(number, epoch, metrics)

    def tell(self, number: int, result: Outcome | Failure) -> None:
        assert self._current is not None
        self._running.discard(number)
        self._current.tell(number, result)
