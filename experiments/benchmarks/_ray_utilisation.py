"""How much of the workers' time real trials of ``--strategy ray`` spend on their own work, and where the rest goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from experiments.benchmarks._busy_clock import BusyClock
from experiments.benchmarks._watched_search import search_on_ray
from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import Configuration
from slimsearch.record.trial import COMPLETE

SPACE, DATASET = "lenet", "mnist5k"
_METRICS = (
    "busy_seconds", "answer_seconds", "queue_seconds", "began", "ended", "process", "latency_ms", "latency_alone",
)  # fmt: skip


def real_trials(folder: Path, workers: int, trials: int, epochs: int) -> dict[str, Any]:
    """Train networks in a search; in a process of its own.

    The sampler is random, so that the networks are the same whatever the number of workers.

    Args:
        folder: of the run; is made, and keeps the files.
        workers, trials, epochs: as for a run.

    Returns:
        what the functions below read.

    Raises:
        SlimsearchError: a trial failed.
    """
    configuration = Configuration(
        space=SPACE, dataset=DATASET, epochs=epochs, trials=trials, workers=workers, sampler="random"
    )
    seen = search_on_ray(configuration, folder, around=BusyClock)
    rows = []
    for trial in seen.trials:
        if trial.state != COMPLETE:
            raise SlimsearchError(f"trial {trial.number} of {SPACE} is {trial.state}: {trial.error}")
        measured = {name: trial.metrics[name] for name in _METRICS}
        rows.append({
            "number": trial.number, "asked": trial.started, "told": trial.ended, **measured,
            "model": trial.artifacts["model"], "architecture": dict(trial.candidate.architecture),
        })  # fmt: skip
    return {"workers": workers, "epochs": epochs, "seconds": seen.seconds, "trials": rows}


@dataclass(frozen=True)
class Shares:
    """Where workers x wall time goes, as shares of it; together they are 1.

    The wall time is that from the first trial's beginning to the last one's end.

    Attributes:
        work: processor time of training, evaluation and measuring.
        imports: what the first evaluation of a process computes beyond the median of those that are not.
        answers: evaluations wait for answers to their reports.
        queue: they wait for a core.
        waiting: they wait for anything else: until somebody has measured, or for the disk. What other threads of the
            process compute meanwhile is taken off, so it can come out a little below 0.
        before: from the recorded beginning of a trial to that of its evaluation: a process is found, or made.
        after: from the end of an evaluation to the recorded end of its trial.
        idle: a worker has no trial.
    """

    work: float
    imports: float
    answers: float
    queue: float
    waiting: float
    before: float
    after: float
    idle: float


def shares(run: Mapping[str, Any]) -> Shares:
    """Of what `real_trials` gave."""
    rows = run["trials"]
    room = run["workers"] * (max(row["told"] for row in rows) - min(row["asked"] for row in rows))
    first = _first_of_their_process(rows)
    usual = median([row["busy_seconds"] for row in rows if row["number"] not in first] or [0.0])
    imports = sum(max(0.0, row["busy_seconds"] - usual) for row in rows if row["number"] in first)
    busy, answers, queue = (_sum(rows, f"{name}_seconds") for name in ("busy", "answer", "queue"))
    inside = _sum(rows, "ended") - _sum(rows, "began")
    before, after = _sum(rows, "began") - _sum(rows, "asked"), _sum(rows, "told") - _sum(rows, "ended")
    found = {
        "work": busy - imports, "imports": imports, "answers": answers, "queue": queue,
        "waiting": inside - busy - answers - queue, "before": before, "after": after,
    }  # fmt: skip
    return Shares(**{name: part / room for name, part in found.items()}, idle=1 - sum(found.values()) / room)


def per_hour(run: Mapping[str, Any]) -> float:
    """Trials an hour once the first has ended, and with it the start of the processes."""
    told: list[float] = sorted(row["told"] for row in run["trials"])
    return 3600 * (len(told) - 1) / (told[-1] - told[0])


@dataclass(frozen=True)
class Usual:
    """Seconds of a trial whose process was there: of the evaluation without its answers, and until it begins."""

    evaluation: float
    dispatch: float


def usual(run: Mapping[str, Any]) -> Usual:
    """Means of the trials that are not the first ones of their process; of all where there are no others."""
    first = _first_of_their_process(run["trials"])
    rows = [row for row in run["trials"] if row["number"] not in first] or run["trials"]
    return Usual(
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
