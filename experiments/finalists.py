"""The end of a run: the finalists' latency measured together, and the test split read, once."""

from __future__ import annotations

from evaluators import MODEL, DeployedModel, LatencySettings, Meter, measure_latency, size_kib
from evaluators.datasets import Dataset
from experiments.ranking import Ranking
from experiments.record import COMPRESSION, SEARCH, Record, Trial
from experiments.run_directory import RunDirectory


def finalists(ranking: Ranking, record: Record, top_k: int) -> list[Trial]:
    """The front of everything in the record, the best of the search, and what compression kept of them."""
    searched = [t for t in record.trials if t.kind == SEARCH]
    compressed = ranking.feasible([t for t in record.trials if t.kind == COMPRESSION])
    chosen = {t.number: t for t in (*ranking.front(record.trials), *ranking.select(searched, top_k), *compressed)}
    return [chosen[number] for number in sorted(chosen)]


def measure_finalists(
    chosen: list[Trial], directory: RunDirectory, data: Dataset, latency: LatencySettings
) -> dict[int, dict[str, float]]:
    """Measure the latency of each file anew, all in turns, and read the test split.

    Gives ``latency_ms`` with quartiles, ``size_kib``, ``test_accuracy`` and ``test_images`` of each. A test accuracy
    that an earlier process recorded stays as it is.
    """
    assert data.test is not None
    paths = [directory.trial_directory(trial.number) / MODEL for trial in chosen]
    with Meter().exclusive() as alone:
        latencies = measure_latency(paths, data.input_shape, batch=latency.batch, threads=latency.threads)
    found: dict[int, dict[str, float]] = {}
    for trial, path, measured in zip(chosen, paths, latencies, strict=True):
        accuracy = trial.final.get("test_accuracy")
        if accuracy is None:
            predictions = DeployedModel(path).predict(data, data.test)
            accuracy = float((predictions == data.test.labels).mean())
        found[trial.number] = {
            **measured.metrics(),
            "latency_alone": float(alone),
            "size_kib": size_kib(path),
            "test_accuracy": accuracy,
            "test_images": float(len(data.test)),
        }
    return found
