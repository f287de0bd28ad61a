"""How a search is driven: what a strategy asks of the search, and what is asked of a strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from evaluators import Evaluator, Outcome, Task


@dataclass(frozen=True)
class Failure:
    """A task that gave no outcome.

    Attributes:
        error: one line, with the exception's name.
        worker_died: the process was lost; the same task may well succeed elsewhere.
    """

    error: str
    worker_died: bool = False


class Search(Protocol):
    """Where tasks come from and results go. It is called from one thread only."""

    def ask(self) -> Task | None:
        """The next task; None: nothing now, and nothing ever if nothing is running."""

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Progress of a running task; False: it is to stop."""

    def tell(self, number: int, result: Outcome | Failure) -> None:
        """The result of a task."""


class Strategy(Protocol):
    """An engine: owns the workers, and nothing else."""

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate everything that `search` asks for.

        Raises:
            KeyboardInterrupt: after the workers were stopped; what was running is left to a resumed run.
        """
