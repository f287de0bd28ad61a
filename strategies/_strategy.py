"""How a search is driven: what a strategy asks of the search, and what is asked of a strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Evaluator, Outcome, Task
from slimsearch.search_spaces import Point, Space


@dataclass(frozen=True)
class Failure:
    """A task that gave no outcome.

    Attributes:
        error: one line, with the exception's name.
        worker_died: the process was lost; the same task may well succeed elsewhere.
        blameless: it was lost with its machine, with something that runs none of the task's code, or perhaps beside
            another task that took all memory.
        unwritable: nothing can be written where the run's files are, the disk being full: no task could succeed.
    """

    error: str
    worker_died: bool = False
    blameless: bool = False
    unwritable: bool = False


@dataclass(frozen=True)
class Recorded:
    """What the record has of a candidate.

    Attributes:
        metrics: empty where it failed.
        losses: see `Search.losses`.
    """

    metrics: Mapping[str, float]
    losses: tuple[float, ...] | None


@dataclass(frozen=True)
class Figures:
    """How a run stands.

    Attributes:
        states: how many trials are in each.
        best: the best value of each objective among the complete trials that keep every limit.
        hypervolume: of their front, see `slimsearch.evaluators.hypervolume`; None where there is none.
    """

    states: Mapping[str, int]
    best: Mapping[str, float]
    hypervolume: float | None


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

    def losses(self, number: int) -> tuple[float, ...] | None:
        """The objectives, or the weighted product alone, of a trial that has ended: less is better.

        None where it failed, was ruled out, was ended early or is paused.
        """

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Progress of a running task; False: it is to stop."""

    def tell(self, number: int, result: Outcome | Failure) -> None:
        """The result of a task."""

    def figures(self) -> Figures:
        """How the run stands, for whoever watches it."""


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


def space_of(name: str, evaluator: Evaluator) -> Space:
    """The space of the networks that `evaluator` evaluates, for a strategy that proposes by itself.

    Raises:
        SlimsearchError: it does not say which.
    """
    space = getattr(evaluator, "space", None)
    if not isinstance(space, Space):
        raise SlimsearchError(f"{name} needs the space to search, and {type(evaluator).__name__} has no `space`")
    return space
