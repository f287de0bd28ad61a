"""A search on Ray whose driver is watched: how long it computes, and for what."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from slimsearch.evaluators import Evaluator, Outcome, Task
from slimsearch.loop.phases import Phases
from slimsearch.loop.problem import PythonObjects, prepare
from slimsearch.loop.search import ArchitectureSearch, Budget
from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import Trial
from slimsearch.report.figures import figures
from slimsearch.search_spaces import Point
from slimsearch.strategies import Failure, Figures, Recorded, Search, StrategySettings
from slimsearch.strategies.ray import Ray
from slimsearch.strategies.samplers import load_sampler

T = TypeVar("T")

ASK, REPORT, TELL = "ask", "report", "tell"


@dataclass(frozen=True)
class Moment:
    """What the driver was asked.

    Attributes:
        kind: "ask" (that gave a task), "report" of an epoch, or "tell".
        ended: `time.perf_counter` at its end.
        process: processor seconds of the driver's process so far, all of its threads.
        inside: those of the search's own thread for this.
    """

    kind: str
    ended: float
    process: float
    inside: float


class Watched:
    """Another search, whose calls are noted."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self.moments: list[Moment] = []

    def ask(self) -> Task | None:
        return self._noted(ASK, self._search.ask)

    def offer(self, architecture: Point) -> Task | Recorded | None:
        return self._search.offer(architecture)

    def close(self) -> None:
        self._search.close()

    def losses(self, number: int) -> tuple[float, ...] | None:
        return self._search.losses(number)

    def figures(self) -> Figures:
        return self._search.figures()

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        return self._noted(REPORT, lambda: self._search.report(number, epoch, metrics))

    def tell(self, number: int, result: Outcome | Failure) -> None:
        self._noted(TELL, lambda: self._search.tell(number, result))

    def _noted(self, kind: str, call: Callable[[], T]) -> T:
        before = time.thread_time()
        found = call()
        if kind != ASK or found is not None:
            inside = time.thread_time() - before
            self.moments.append(Moment(kind, time.perf_counter(), time.process_time(), inside))
        return found


@dataclass(frozen=True)
class Seen:
    """A search that is over.

    Attributes:
        trials: its record.
        moments: of its driver.
        seconds: of the strategy, from its beginning to its end.
    """

    trials: tuple[Trial, ...]
    moments: tuple[Moment, ...]
    seconds: float


def search_on_ray(
    configuration: Configuration,
    folder: Path,
    *,
    space: Any = None,
    evaluate: Callable[..., Mapping[str, float]] | None = None,
    around: Callable[[Evaluator], Evaluator] = lambda evaluator: evaluator,
) -> Seen:
    """The search of a run, recorded in `folder`, without compression and report.

    Args:
        configuration: its options.
        folder: of the run; is made.
        space, evaluate: choices and a function, in place of those in `configuration`.
        around: puts something around the evaluator, as it travels to the workers.
    """
    problem = prepare(configuration, PythonObjects(space=space, evaluate=evaluate))
    ranking = Ranking.of(configuration)
    with RunDirectory(folder, create=True) as directory:
        record = Record(directory.open_study(ranking.objectives), problem.space, ranking.objectives)
        search = ArchitectureSearch(
            problem.space, load_sampler(configuration.sampler), ranking, record, directory,
            Budget(configuration.trials, configuration.epochs), seed=configuration.seed,
        )  # fmt: skip
        watched = Watched(Phases(search, iter(()), lambda: figures(ranking, record.trials)))
        evaluator = around(problem.evaluator(directory))
        settings = StrategySettings(
            workers=configuration.workers, cpus_per_trial=configuration.cpus_per_trial, run_directory=directory.path
        )
        strategy = Ray(settings)
        started = time.perf_counter()
        strategy.run(watched, evaluator)
        return Seen(tuple(record.trials), tuple(watched.moments), time.perf_counter() - started)
