"""Processor time of the driver of ``--strategy ray``, by the number of live trials."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from experiments.benchmarks._cluster_simulation import Costs
from slimsearch.evaluators import Evaluator, Outcome, Task
from slimsearch.loop.phases import Phases
from slimsearch.loop.problem import prepare
from slimsearch.loop.python_objects import PythonObjects
from slimsearch.loop.search import ArchitectureSearch, Budget
from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import Trial
from slimsearch.report.run_summary import run_status
from slimsearch.search_spaces import Point
from slimsearch.strategies import Failure, Recorded, RunStatus, Search, StrategySettings
from slimsearch.strategies.ray import Ray
from slimsearch.strategies.samplers import load_sampler

T = TypeVar("T")

ASK, REPORT, TELL = "ask", "report", "tell"


@dataclass(frozen=True)
class DriverCall:
    """A call of the driver.

    Attributes:
        kind: "ask" that returned a task, "report" of an epoch, or "tell".
        ended: `time.perf_counter` at the end.
        process: processor seconds of the driver's process so far, all threads.
        inside: processor seconds of the search's thread for this call.
    """

    kind: str
    ended: float
    process: float
    inside: float


class WatchedSearch:
    """Records the calls of a search."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self.calls: list[DriverCall] = []

    def ask(self) -> Task | None:
        return self._noted(ASK, self._search.ask)

    def offer(self, architecture: Point) -> Task | Recorded | None:
        return self._search.offer(architecture)

    def close(self) -> None:
        self._search.close()

    def recorded(self, number: int) -> Recorded | None:
        return self._search.recorded(number)

    def status(self) -> RunStatus:
        return self._search.status()

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        return self._noted(REPORT, lambda: self._search.report(number, epoch, metrics))

    def tell(self, number: int, result: Outcome | Failure) -> None:
        self._noted(TELL, lambda: self._search.tell(number, result))

    def _noted(self, kind: str, ask: Callable[[], T]) -> T:
        before = time.thread_time()
        found = ask()
        if kind != ASK or found is not None:
            inside = time.thread_time() - before
            self.calls.append(DriverCall(kind, time.perf_counter(), time.process_time(), inside))
        return found


@dataclass(frozen=True)
class WatchedSearchResult:
    """A finished search.

    Attributes:
        trials: of its record.
        calls: of its driver.
        seconds: duration of the strategy.
    """

    trials: tuple[Trial, ...]
    calls: tuple[DriverCall, ...]
    seconds: float


def search_on_ray(
    configuration: Configuration,
    folder: Path,
    *,
    space: Any = None,
    evaluate: Callable[..., Mapping[str, float]] | None = None,
    around: Callable[[Evaluator], Evaluator] = lambda evaluator: evaluator,
) -> WatchedSearchResult:
    """Run a search with ``--strategy ray``, without compression and report.

    Args:
        configuration: options of the run.
        folder: run directory, which is made.
        space, evaluate: choices and a function, instead of those of `configuration`.
        around: wraps the evaluator that is sent to the workers.
    """
    problem = prepare(configuration, PythonObjects(space=space, evaluate=evaluate))
    ranking = Ranking.of(configuration)
    with RunDirectory(folder, create=True) as directory:
        record = Record(directory.open_study(ranking.objectives), problem.space, ranking.objectives)
        search = ArchitectureSearch(
            problem.space, load_sampler(configuration.sampler), ranking, record, directory,
            Budget(configuration.trials, configuration.epochs), seed=configuration.seed,
        )  # fmt: skip
        watched = WatchedSearch(Phases(search, iter(()), lambda: run_status(ranking, record.trials)))
        evaluator = around(problem.evaluator(directory))
        settings = StrategySettings(
            workers=configuration.workers, cpus_per_trial=configuration.cpus_per_trial, run_directory=directory.path
        )
        strategy = Ray(settings)
        started = time.perf_counter()
        strategy.run(watched, evaluator)
        return WatchedSearchResult(tuple(record.trials), tuple(watched.calls), time.perf_counter() - started)


REPORTS = 10
_CHOICES = {"a": list(range(100)), "b": list(range(100))}
_PATIENCE = 300.0


@dataclass(frozen=True)
class DriverTimes:
    """Processor time of the driver with a number of workers.

    Attributes:
        workers: trials at a time.
        trials: counted trials without epochs, and as many with `REPORTS` epochs.
        trials_per_second: of trials without epochs.
        proposal_ms: a random proposal, and the record of a trial's beginning.
        record_ms: the record of costs before the first epoch, and of a trial's end.
        engine_ms: all other processor time of the driver's process per trial.
        record_report_ms, engine_report_ms: likewise per report of an epoch.
        alive_seconds: from the begin of the first trial until all workers have one.
        memory_mib: of the driver's child processes, with shared pages divided among them.
    """

    workers: int
    trials: int
    trials_per_second: float
    proposal_ms: float
    record_ms: float
    engine_ms: float
    record_report_ms: float
    engine_report_ms: float
    alive_seconds: float
    memory_mib: float


def drive(workers: int, trials: int) -> DriverTimes:
    """Run `trials` without epochs, then as many with ten empty epochs; call it in a process of its own.

    Trials begin when all workers have one, so that the start of processes is not counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        gate = Path(folder) / "gate"
        gate.mkdir()
        memory: list[float] = []
        watch = threading.Thread(target=_memory_once, args=(gate, memory), daemon=True)
        watch.start()
        configuration = Configuration(
            space="-", objectives="score:max", sampler="random", trials=workers + 2 * trials, epochs=REPORTS,
            workers=workers,
        )  # fmt: skip
        result = search_on_ray(
            configuration, Path(folder) / "run", space=_CHOICES, evaluate=_nothing(gate, workers, workers + trials)
        )
        watch.join()
    tells = [place for place, call in enumerate(result.calls) if call.kind == TELL]
    last_ask = max(place for place, call in enumerate(result.calls) if call.kind == ASK)
    # Trials end in about the order of their numbers: those near a boundary are left out.
    without = _Window(result.calls[tells[workers] : tells[trials] + 1])
    reporting = _Window(result.calls[tells[2 * workers + trials] : last_ask + 1])
    count = reporting.reports / reporting.trials - without.reports / without.trials
    return DriverTimes(
        workers=workers,
        trials=without.trials,
        trials_per_second=without.trials / without.seconds,
        proposal_ms=1000 * without.inside(ASK),
        record_ms=1000 * (without.inside(REPORT) + without.inside(TELL)),
        engine_ms=1000 * without.engine,
        record_report_ms=1000 * max(0.0, reporting.inside(REPORT) - without.inside(REPORT)) / count,
        engine_report_ms=1000 * max(0.0, reporting.engine - without.engine) / count,
        # No trial ends before all workers have one.
        alive_seconds=result.calls[tells[0]].ended - result.calls[0].ended,
        memory_mib=memory[0],
    )


def costs(driven: Sequence[Mapping[str, Any]], proposal_ms: float) -> Callable[[int], Costs]:
    """The driver's costs as a function of the number of workers.

    The engine's loop looks at all live trials: its costs are on the straight line through the measurements. Those of
    the record are the mean.

    Args:
        driven: `DriverTimes` as dicts, for at least two numbers of workers.
        proposal_ms: a proposal of a candidate, beyond a random one.
    """

    def mean(name: str) -> float:
        return fmean(row[name] for row in driven) / 1000

    # The time of a random proposal includes the record of a trial's beginning.
    record, record_report = mean("proposal_ms") + mean("record_ms"), mean("record_report_ms")
    engine, engine_report = (
        _line([(row["workers"], row[name] / 1000) for row in driven]) for name in ("engine_ms", "engine_report_ms")
    )

    def with_workers(workers: int) -> Costs:
        return Costs(proposal_ms / 1000, record, engine(workers), record_report, engine_report(workers))

    return with_workers


def _line(points: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """Least squares, with base and slope of at least 0: more workers never cost less."""
    middle, level = fmean(x for x, _ in points), fmean(y for _, y in points)
    across = sum((x - middle) ** 2 for x, _ in points)
    slope = sum((x - middle) * (y - level) for x, y in points) / across
    slope = min(max(0.0, slope), level / middle)
    return lambda x: level + slope * (x - middle)


class _Window:
    """Calls between the ends of two trials; the first end only starts the window."""

    def __init__(self, calls: Sequence[DriverCall]) -> None:
        begin, *self._calls = calls
        end = self._calls[-1]
        self.seconds = end.ended - begin.ended
        self.trials = sum(call.kind == TELL for call in self._calls)
        self.reports = sum(call.kind == REPORT for call in self._calls)
        inside = sum(call.inside for call in self._calls)
        self.engine = (end.process - begin.process - inside) / self.trials

    def inside(self, kind: str) -> float:
        """Seconds per trial."""
        return sum(call.inside for call in self._calls if call.kind == kind) / self.trials


def _nothing(gate: Path, workers: int, without: int) -> Callable[..., dict[str, float]]:
    """Evaluates nothing, once all workers have a trial; trials from number `without` on report epochs."""
    ready = gate / "ready"

    def evaluate(candidate: Mapping[str, Any], report: Any, directory: Path) -> dict[str, float]:
        deadline = time.monotonic() + _PATIENCE
        if not ready.exists():
            (gate / directory.name).touch()
            while not ready.exists() and len(list(gate.iterdir())) < workers:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{workers} trials at a time were not reached")
                time.sleep(0.05)
            ready.touch()
        for epoch in range(REPORTS if int(directory.name) >= without else 0):
            report(epoch + 1, {"score": 0.0})
        return {"score": float(candidate["a"] * candidate["b"] % 97)}

    return evaluate


def _memory_once(gate: Path, found: list[float]) -> None:
    """Memory of this process's descendants in MiB, once all workers have a trial."""
    deadline = time.monotonic() + _PATIENCE
    while not (gate / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    found.append(sum(_proportional_kib(pid) for pid in _descendants(os.getpid())) / 1024)


def _descendants(pid: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name, in brackets, may have spaces.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found: set[int] = set()
    more = {pid}
    while more:
        more = {child for child, parent in parents.items() if parent in more} - found
        found |= more
    return found


def _proportional_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
