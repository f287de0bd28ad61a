"""How a search is driven: what a strategy asks of the search, and what is asked of a strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from evaluators import Evaluator, Outcome, Task
from search_spaces import Point


@dataclass(frozen=True)
class Failure:
    """A task that gave no outcome.

    Attributes:
        error: one line, with the exception's name.
        worker_died: the process was lost; the same task may well succeed elsewhere.
    """

    error: str
    worker_died: bool = False


@dataclass(frozen=True)
class Recorded:
    """What the record has of a candidate.

    Attributes:
        metrics: empty where it failed.
        score: more is better; None where it failed or was ruled out.
    """

    metrics: Mapping[str, float]
    score: float | None


class Search(Protocol):
    """Where tasks come from and results go. It is called from one thread only."""

    def ask(self) -> Task | None:
        """The next task; None: nothing now, and nothing ever if nothing is running."""

    def offer(self, architecture: Point) -> Task | Recorded | None:
        """A candidate that the strategy itself proposes: a task, what is recorded of it, or None: the budget is spent.

        Raises:
            SlimsearchError: it is not in the space.
        """

    def close(self) -> None:
        """A strategy that proposes by itself has nothing further to offer."""

    def score(self, number: int) -> float | None:
        """The first objective, or the weighted product, of a trial that has ended: more is better.

        None where it failed, was ruled out or was ended early.
        """

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Progress of a running task; False: it is to stop."""

    def tell(self, number: int, result: Outcome | Failure) -> None:
        """The result of a task."""


class Strategy(Protocol):
    """An engine: owns the workers, and nothing else.

    A class says what is special about it: ``PROPOSES = True``, it proposes by itself; ``INHERITS = True``, candidates
    are first judged with weights from a supernet; ``NEEDS_NETWORKS = True``, it has no use for tables and functions;
    ``FILLS = True``, told of no number of workers it has as many as there is room for where it works.
    """

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate everything that `search` asks for.

        Raises:
            KeyboardInterrupt: after the workers were stopped; what was running is left to a resumed run.
        """
