"""What the driver of ``--strategy ray`` computes for a trial and for a report, by how many trials are alive."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.benchmarks._cluster_simulation import Costs
from experiments.benchmarks._watched_search import ASK, REPORT, TELL, Moment, search_on_ray
from slimsearch.options.configuration import Configuration

REPORTS = 10
_CHOICES = {"a": list(range(100)), "b": list(range(100))}
_PATIENCE = 300.0


@dataclass(frozen=True)
class Driven:
    """What it took to drive so many trials at a time.

    Attributes:
        workers: trials at a time.
        trials: that were counted, without epochs and, as many, with `REPORTS` of them.
        trials_per_second: of those without.
        proposal_ms: processor time of a random proposal and of recording a trial's beginning.
        record_ms: of recording what is known before the first epoch, and the end.
        engine_ms: all other processor time of the driver's process, a trial.
        record_report_ms, engine_report_ms: likewise of an epoch's report.
        alive_seconds: from the first trial's beginning until all are there.
        memory_mib: of the processes that the driver started, shared pages divided among them.
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


def drive(workers: int, trials: int) -> Driven:
    """In a process of its own: first `trials` that do nothing, then as many that report ten epochs and do nothing.

    They begin when as many are alive as can be: to start their processes costs nothing here.
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
        seen = search_on_ray(
            configuration, Path(folder) / "run", space=_CHOICES, evaluate=_nothing(gate, workers, workers + trials)
        )
        watch.join()
    tells = [place for place, moment in enumerate(seen.moments) if moment.kind == TELL]
    last_ask = max(place for place, moment in enumerate(seen.moments) if moment.kind == ASK)
    # Trials end in about the order of their numbers: what is near a boundary is left out.
    without = _Window(seen.moments[tells[workers] : tells[trials] + 1])
    reporting = _Window(seen.moments[tells[2 * workers + trials] : last_ask + 1])
    count = reporting.reports / reporting.trials - without.reports / without.trials
    return Driven(
        workers=workers,
        trials=without.trials,
        trials_per_second=without.trials / without.seconds,
        proposal_ms=1000 * without.inside(ASK),
        record_ms=1000 * (without.inside(REPORT) + without.inside(TELL)),
        engine_ms=1000 * without.engine,
        record_report_ms=1000 * max(0.0, reporting.inside(REPORT) - without.inside(REPORT)) / count,
        engine_report_ms=1000 * max(0.0, reporting.engine - without.engine) / count,
        # None ends before all are there.
        alive_seconds=seen.moments[tells[0]].ended - seen.moments[0].ended,
        memory_mib=memory[0],
    )


def costs(driven: Sequence[Mapping[str, Any]], proposal_ms: float) -> Callable[[int], Costs]:
    """The driver's costs with any number of workers.

    Those of the engine's loop, which looks at every live trial, are on the straight line through what was measured;
    those of the record, which does not, are the mean.

    Args:
        driven: `Driven` as dicts, of at least two numbers of workers.
        proposal_ms: of a candidate, beyond a random one.
    """

    def mean(name: str) -> float:
        return fmean(row[name] for row in driven) / 1000

    # To record a trial's beginning is in the time of the random proposal.
    record, record_report = mean("proposal_ms") + mean("record_ms"), mean("record_report_ms")
    engine, engine_report = (
        _line([(row["workers"], row[name] / 1000) for row in driven]) for name in ("engine_ms", "engine_report_ms")
    )

    def with_workers(workers: int) -> Costs:
        return Costs(proposal_ms / 1000, record, engine(workers), record_report, engine_report(workers))

    return with_workers


def _line(points: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """By least squares; neither base nor slope is below 0: more workers never cost less."""
    middle, level = fmean(x for x, _ in points), fmean(y for _, y in points)
    across = sum((x - middle) ** 2 for x, _ in points)
    slope = sum((x - middle) * (y - level) for x, y in points) / across
    slope = min(max(0.0, slope), level / middle)
    return lambda x: level + slope * (x - middle)


class _Window:
    """Moments between two trials' ends, the first of which only begins it."""

    def __init__(self, moments: Sequence[Moment]) -> None:
        begin, *self._moments = moments
        end = self._moments[-1]
        self.seconds = end.ended - begin.ended
        self.trials = sum(moment.kind == TELL for moment in self._moments)
        self.reports = sum(moment.kind == REPORT for moment in self._moments)
        inside = sum(moment.inside for moment in self._moments)
        self.engine = (end.process - begin.process - inside) / self.trials

    def inside(self, kind: str) -> float:
        """Seconds a trial."""
        return sum(moment.inside for moment in self._moments if moment.kind == kind) / self.trials


def _nothing(gate: Path, workers: int, without: int) -> Callable[..., dict[str, float]]:
    """Evaluates nothing, once so many `workers` are there; trials from number `without` on report epochs."""
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
    """MiB of this process's descendants, when all trials are there."""
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
