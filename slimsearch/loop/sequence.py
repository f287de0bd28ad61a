"""One phase of a run after the other, as the one search that a strategy sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from slimsearch.evaluators import Outcome, Task
from slimsearch.search_spaces import Point
from slimsearch.strategies import Failure, Figures, Recorded


class Phase(Protocol):
    """A part of a run: tasks out, results in."""

    def ask(self) -> Task | None:
        """The next task; None: nothing now, and nothing ever if nothing is running."""

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Progress of a running task; False: it is to stop."""

    def tell(self, number: int, result: Outcome | Failure) -> None:
        """The result of a task."""

    def waits(self) -> bool:
        """Whether, with nothing to do now and nothing running here, something may come of what other drivers do."""


class OpenPhase(Phase, Protocol):
    """One in which the strategy proposes by itself, as long as it is open."""

    open: bool

    def offer(self, architecture: Point) -> Task | Recorded | None:
        """See `slimsearch.strategies.Search`."""

    def close(self) -> None:
        """See `slimsearch.strategies.Search`."""

    def losses(self, number: int) -> tuple[float, ...] | None:
        """See `slimsearch.strategies.Search`."""


class Phases:
    """Asks the phases in turn; the next one is made when the one before has nothing left and nothing running.

    Args:
        first: the search itself; where the strategy proposes, it lasts until that closes it.
        rest: makers of the other phases, each called when its turn comes.
        figures: how the run stands.
        wait: gives other drivers time.
    """

    def __init__(
        self, first: OpenPhase, rest: Iterator[Callable[[], Phase]], figures: Callable[[], Figures],
        wait: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._search = first
        self._rest = rest
        self.figures = figures
        self._wait = wait
        self._current: Phase = first
        self._running: set[int] = set()

    def ask(self) -> Task | None:
        while True:
            task = self._current.ask()
            if task is not None:
                self._running.add(task.number)
                return task
            if self._running or (self._current is self._search and self._search.open):
                return None
            if self._current.waits():
                self._wait()
                continue
            make = next(self._rest, None)
            if make is None:
                return None
            self._current = make()

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        return self._current.report(number, epoch, metrics)

    def tell(self, number: int, result: Outcome | Failure) -> None:
        self._running.discard(number)
        self._current.tell(number, result)

    def offer(self, architecture: Point) -> Task | Recorded | None:
        answer = self._search.offer(architecture)
        if isinstance(answer, Task):
            self._running.add(answer.number)
        return answer

    def close(self) -> None:
        self._search.close()

    def losses(self, number: int) -> tuple[float, ...] | None:
        return self._search.losses(number)
