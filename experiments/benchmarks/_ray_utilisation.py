"""Utilisation of workers by real trials of ``--strategy ray``, and where the other time goes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from experiments.benchmarks._ray_driver import search_on_ray
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Evaluator, Outcome, ReportEpoch, Task
from slimsearch.options.configuration import Configuration
from slimsearch.record.trial import COMPLETE


@dataclass(frozen=True)
class BusyClock:
    """Adds times to the metrics of another evaluator.

    - ``busy_seconds``: processor time of the process, which excludes all waiting. Evaluations use one thread.
    - ``answer_seconds``: waiting for answers to reports.
    - ``queue_seconds``: waiting for a core; 0 where the system does not tell.
    - ``began``, ``ended``: seconds since 1970.
    - ``process``: process ID; the first evaluation of a process includes imports.
    """

    evaluator: Evaluator

    def evaluate(self, task: Task, *, report: ReportEpoch) -> Outcome:
        """Evaluate, and time it."""
        answers = 0.0

        def timed(epoch: int, metrics: Mapping[str, float]) -> bool:
            nonlocal answers
            asked = time.perf_counter()
            go_on = report(epoch, metrics)
            answers += time.perf_counter() - asked
            return go_on

        began, busy, queue = time.time(), time.process_time(), _queued()
        outcome = self.evaluator.evaluate(task, report=timed)
        times = {
            "busy_seconds": time.process_time() - busy, "answer_seconds": answers,
            "queue_seconds": _queued() - queue, "began": began, "ended": time.time(), "process": float(os.getpid()),
        }  # fmt: skip
        return Outcome({**outcome.metrics, **times}, outcome.artifacts)


def _queued() -> float:
    """Seconds that this thread was ready to run without a core, on Linux."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


SPACE, DATASET = "lenet", "mnist5k"
_METRICS = (
    "busy_seconds", "answer_seconds", "queue_seconds", "began", "ended", "process", "latency_ms", "latency_alone",
)  # fmt: skip


def real_trials(folder: Path, workers: int, trials: int, epochs: int) -> dict[str, Any]:
    """Train networks in a search; call it in a process of its own.

    The sampler is random, so that the networks do not depend on the number of workers.

    Args:
        folder: run directory, which is made.
        workers, trials, epochs: options of the run.

    Returns:
        JSON for the functions below.

    Raises:
        SlimsearchError: a trial failed.
    """
    configuration = Configuration(
        space=SPACE, dataset=DATASET, epochs=epochs, trials=trials, workers=workers, sampler="random"
    )
    result = search_on_ray(configuration, folder, around=BusyClock)
    rows = []
    for trial in result.trials:
        if trial.state != COMPLETE:
            raise SlimsearchError(f"trial {trial.number} of {SPACE} is {trial.state}: {trial.error}")
        measured = {name: trial.metrics[name] for name in _METRICS}
        rows.append({
            "number": trial.number, "asked": trial.started, "told": trial.ended, **measured,
            "model": trial.artifacts["model"], "architecture": dict(trial.candidate.architecture),
        })  # fmt: skip
    return {"workers": workers, "epochs": epochs, "seconds": result.seconds, "trials": rows}


@dataclass(frozen=True)
class TimeShares:
    """Shares of workers x wall time; their sum is 1.

    The wall time is from the begin of the first trial to the end of the last one.

    Attributes:
        work: processor time of training, evaluation and latency measurement.
        imports: processor time of the first evaluation of a process beyond the median of the others.
        answers: waiting for answers to reports.
        queue: waiting for a core.
        waiting: waiting for others to measure latency, or for the disk. Processor time of other threads is subtracted:
            it can be a little below 0.
        before: from the recorded begin of a trial to the begin of its evaluation: a process is found or started.
        after: from the end of an evaluation to the recorded end of its trial.
        idle: workers without a trial.
    """

    work: float
    imports: float
    answers: float
    queue: float
    waiting: float
    before: float
    after: float
    idle: float


def shares(run: Mapping[str, Any]) -> TimeShares:
    """Time shares of the result of `real_trials`."""
    rows = run["trials"]
    room = run["workers"] * (max(row["told"] for row in rows) - min(row["asked"] for row in rows))
    first = _first_of_their_process(rows)
    trial_means = median([row["busy_seconds"] for row in rows if row["number"] not in first] or [0.0])
    imports = sum(max(0.0, row["busy_seconds"] - trial_means) for row in rows if row["number"] in first)
    busy, answers, queue = (_sum(rows, f"{name}_seconds") for name in ("busy", "answer", "queue"))
    inside = _sum(rows, "ended") - _sum(rows, "began")
    before, after = _sum(rows, "began") - _sum(rows, "asked"), _sum(rows, "told") - _sum(rows, "ended")
    found = {
        "work": busy - imports, "imports": imports, "answers": answers, "queue": queue,
        "waiting": inside - busy - answers - queue, "before": before, "after": after,
    }  # fmt: skip
    return TimeShares(**{name: part / room for name, part in found.items()}, idle=1 - sum(found.values()) / room)


def per_hour(run: Mapping[str, Any]) -> float:
    """Trials per hour after the end of the first trial, and so without the start of processes."""
    told: list[float] = sorted(row["told"] for row in run["trials"])
    return 3600 * (len(told) - 1) / (told[-1] - told[0])


@dataclass(frozen=True)
class TrialMeans:
    """Mean seconds of a trial in a running process: its evaluation without waiting for answers, and its dispatch."""

    evaluation: float
    dispatch: float


def trial_means(run: Mapping[str, Any]) -> TrialMeans:
    """Means over trials that are not the first of their process, or over all if there are no others."""
    first = _first_of_their_process(run["trials"])
    rows = [row for row in run["trials"] if row["number"] not in first] or run["trials"]
    return TrialMeans(
        fmean(row["ended"] - row["began"] - row["answer_seconds"] for row in rows),
        fmean(row["began"] - row["asked"] for row in rows),
    )


def _first_of_their_process(rows: Sequence[Mapping[str, Any]]) -> set[int]:
    first: dict[float, int] = {}
    for row in sorted(rows, key=lambda row: row["began"]):
        first.setdefault(row["process"], row["number"])
    return set(first.values())


def _sum(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(sum(row[name] for row in rows))
