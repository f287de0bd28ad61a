"""Statistics of finalists: confidence intervals, significance of differences, and results over several seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import load_examples, significantly_different, wilson
from slimsearch.record.lineage import repetitions
from slimsearch.record.trial import Trial, trial_folder

_ACCURACIES = {"val_accuracy": "val_images", "test_accuracy": "test_images"}
_LATENCY = ("latency_low_ms", "latency_high_ms")


def intervals(metrics: Mapping[str, float]) -> dict[str, list[float]]:
    """95% confidence intervals of a trial's metrics: as recorded, Wilson's for accuracies, that of the latency."""
    found = {}
    for name, counted in _ACCURACIES.items():
        value, images = metrics.get(name), metrics.get(counted, 0.0)
        # A user's own accuracy may be in percent, or no share of examples.
        if value is not None and images > 0 and 0 <= value <= 1 and math.isclose(value * images, round(value * images)):
            found[name] = list(wilson(value, int(images)))
    for low, value in metrics.items():
        name = low.removesuffix("_low")
        if low.endswith("_low") and name in metrics and f"{name}_high" in metrics:
            found[name] = [value, metrics[f"{name}_high"]]
    if all(name in metrics for name in _LATENCY):
        found["latency_ms"] = [metrics[name] for name in _LATENCY]
    return found


def _latencies_differ(one: Trial, other: Trial) -> bool:
    """Whether the intervals of two latencies do not overlap; without intervals, whether the latencies differ."""
    if not all(name in trial.metrics for name in _LATENCY for trial in (one, other)):
        return one.metrics["latency_ms"] != other.metrics["latency_ms"]
    low, high = _LATENCY
    return one.metrics[low] > other.metrics[high] or other.metrics[low] > one.metrics[high]


class Significance:
    """Tests whether finalists of a run differ significantly in a metric."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._correct: dict[int, np.ndarray[Any, np.dtype[np.bool_]] | None] = {}

    def differ(self, metric: str, one: Trial, other: Trial) -> bool:
        """Accuracy is compared by McNemar's test on the same images; other metrics by intervals, or else exactly."""
        if metric == "latency_ms":
            return _latencies_differ(one, other)
        if metric == "val_accuracy":
            first, second = self._correct_of(one), self._correct_of(other)
            if first is not None and second is not None and len(first) == len(second):
                return significantly_different(first, second)
        ranges = [intervals(trial.metrics).get(metric) for trial in (one, other)]
        if ranges[0] is not None and ranges[1] is not None:
            return ranges[0][0] > ranges[1][1] or ranges[1][0] > ranges[0][1]
        return one.metrics[metric] != other.metrics[metric]

    def ties(self, metric: str, trial: Trial, others: Sequence[Trial]) -> list[int]:
        """Numbers of the `others` that do not differ significantly from `trial`."""
        return [t.number for t in others if t.number != trial.number and not self.differ(metric, trial, t)]

    def _correct_of(self, trial: Trial) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """Whether each image was classified correctly; None if the accuracy is not the share of those that were."""
        if trial.number not in self._correct:
            try:
                first = load_examples(self._directory / trial_folder(trial.number))[:, 0]
            except SlimsearchError:  # trials of a function or a table have no predictions
                first = np.zeros(0)
            shares = len(first) > 1 and math.isclose(
                first.mean(dtype=float), trial.metrics["val_accuracy"], abs_tol=1e-9
            )
            self._correct[trial.number] = first > 0 if shares and np.isin(first, (0, 1)).all() else None
        return self._correct[trial.number]


def seed_statistics(trial: Trial, trials: Sequence[Trial], metrics: Sequence[str]) -> dict[str, Any] | None:
    """Mean and standard deviation of a finalist's accuracies and `metrics` over its seeds; None for a single seed."""
    again = [t.with_final_metrics() for t in repetitions(trial, trials)]
    if not again:
        return None
    found: dict[str, Any] = {"trainings": 1 + len(again), "trials": [trial.number, *(t.number for t in again)]}
    for name in dict.fromkeys((*_ACCURACIES, *metrics)):
        values = [t.metrics[name] for t in (trial, *again) if name in t.metrics]
        if len(values) == 1 + len(again) and name != "latency_ms":  # latencies of repetitions are not measured together
            found[name] = {"mean": mean(values), "standard_deviation": stdev(values), "values": values}
    return found
