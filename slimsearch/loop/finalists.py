"""Finalists: their selection, the measurement of their latencies together, and their test accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from slimsearch.evaluators import MODEL, DeployedModel, LatencySettings, Meter, confusion, measure_latency, size_kib
from slimsearch.evaluators.datasets import Dataset
from slimsearch.loop.problem import Problem
from slimsearch.record.lineage import repetitions
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.shared.study import SharedStudy
from slimsearch.record.trial import COMPRESSION, SEARCH, Trial
from slimsearch.report.display import Display

_BLOCKS = 45
# Seconds to wait for an idle machine: the limits, and the share of the time of all trials.
_LEAST_PATIENCE, _PATIENCE, _LONGEST_PATIENCE = 0.3, 0.05, 60.0
# Recorded cells of a confusion matrix besides its diagonal: those with the most images.
_MOST_CELLS = 4000

Cells = list[tuple[int, int, int]]


@dataclass
class Measurements:
    """Measurements of finalists, by trial number.

    Attributes:
        metrics: see `measure_finalists`.
        confusions: on the test split: (true class, predicted class, images), most images first.
    """

    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    confusions: dict[int, Cells] = field(default_factory=dict)


def finalists(ranking: Ranking, record: Record, top_k: int) -> list[Trial]:
    """The Pareto front of all trials, the best `top_k` search trials, and their compressed networks."""
    searched = [t for t in record.trials if t.kind == SEARCH]
    compressed = ranking.feasible([t for t in record.trials if t.kind == COMPRESSION])
    chosen = {t.number: t for t in (*ranking.front(record.trials), *ranking.select(searched, top_k), *compressed)}
    return [chosen[number] for number in sorted(chosen)]


def finish(
    chosen: Sequence[Trial],
    problem: Problem,
    record: Record,
    directory: RunDirectory,
    display: Display,
    shared: SharedStudy | None,
) -> None:
    """Measure the finalists `chosen` and record the measurements, unless an earlier process has done so.

    Of several drivers of a `shared` study, the first to get here measures for all.
    """
    again = [repetition for trial in chosen for repetition in repetitions(trial, record.trials)]
    both = [*chosen, *again]
    for trial in both:
        record.fetch(trial)
    if problem.data is None:
        record.record_final({trial.number: trial.metrics for trial in both})
        return
    if {trial.number for trial in both} == record.finalists:
        return
    data, took = problem.data, sum(trial.seconds for trial in record.trials)

    def measure() -> Measurements:
        display.note(f"measuring {len(chosen)} finalists together, and reading the test split")
        return measure_finalists(chosen, again, directory, data, problem.latency, took)

    if shared is None:
        measurements = measure()
    else:
        key = f"finalists {','.join(str(trial.number) for trial in both)}"
        waiting = "another driver measures the finalists; waiting for its results"
        agreed = shared.once(
            key, directory.identity(), lambda: dataclasses.asdict(measure()), lambda: display.note(waiting)
        )
        # JSON in the database turns trial numbers into text.
        measurements = Measurements(
            *({int(number): one for number, one in agreed[name].items()} for name in ("metrics", "confusions"))
        )
    record.record_final(measurements.metrics, measurements.confusions)


def measure_finalists(
    chosen: Sequence[Trial],
    again: Sequence[Trial],
    directory: RunDirectory,
    data: Dataset,
    latency: LatencySettings,
    took: float,
) -> Measurements:
    """Measure the latencies of all finalists, interleaved, and their accuracy on the test split.

    Args:
        chosen: the finalists.
        again: their repetitions with other seeds, for which only the accuracy is measured.
        directory: of the run.
        data: with its test split.
        latency: threads, batch size and runtime.
        took: seconds of all trials; a longer run waits longer for an idle machine.

    Returns:
        ``latency_ms`` with its interval, ``size_kib``, ``test_accuracy``, ``test_images`` and confusion matrix of each.
        Test results of an earlier process are reused: the test split is read once.
    """
    paths = [directory.trial_directory(trial.number) / MODEL for trial in chosen]
    patience = min(_LONGEST_PATIENCE, max(_LEAST_PATIENCE, _PATIENCE * took))
    with Meter().exclusive() as alone:
        latencies = measure_latency(
            paths, data.input_shape, batch=latency.batch, threads=latency.threads, runtime=latency.runtime,
            blocks=_BLOCKS, patience=patience,
        )  # fmt: skip
    measurements = Measurements()
    for trial, path, measured in zip(chosen, paths, latencies, strict=True):
        measurements.metrics[trial.number] = {
            **measured.metrics(), "latency_alone": float(alone), "size_kib": size_kib(path),
        }  # fmt: skip
    for trial in (*chosen, *again):
        accuracy, cells = _test(trial, directory, data, latency.runtime)
        measurements.metrics.setdefault(trial.number, {}).update(accuracy)
        if cells:
            measurements.confusions[trial.number] = cells
    return measurements


def _test(trial: Trial, directory: RunDirectory, data: Dataset, runtime: str) -> tuple[dict[str, float], Cells]:
    assert data.test is not None
    accuracy, cells = trial.final.get("test_accuracy"), list(trial.confusion)
    if accuracy is None:
        path = directory.trial_directory(trial.number) / MODEL
        predictions = DeployedModel(path, runtime=runtime).predict(data, data.test)
        accuracy = float((predictions == data.test.labels).mean())
        every = confusion(data.test.labels, predictions)
        cells = [cell for rank, cell in enumerate(every) if rank < _MOST_CELLS or cell[0] == cell[1]]
    return {"test_accuracy": accuracy, "test_images": float(len(data.test))}, cells
