"""How far the numbers of the finalists can be relied on: intervals, what cannot be told apart, and other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import load_right, told_apart, wilson
from slimsearch.record.lineage import repetitions
from slimsearch.record.trial import Trial, trial_folder

_ACCURACIES = {"val_accuracy": "val_images", "test_accuracy": "test_images"}
_LATENCY = ("latency_low_ms", "latency_high_ms")


def intervals(metrics: Mapping[str, float]) -> dict[str, list[float]]:
    """The 95% intervals of a finalist's metrics: Wilson's of accuracies, that of the measurement of the latency."""
    found = {
        name: list(wilson(metrics[name], int(metrics[images])))
        for name, images in _ACCURACIES.items()
        if name in metrics and images in metrics
    }
    if all(name in metrics for name in _LATENCY):
        found["latency_ms"] = [metrics[name] for name in _LATENCY]
    return found


def _told_by_latency(one: Trial, other: Trial) -> bool:
    """Whether the intervals of two latencies are apart; without intervals, whether they differ."""
    if not all(name in trial.metrics for name in _LATENCY for trial in (one, other)):
        return one.metrics["latency_ms"] != other.metrics["latency_ms"]
    low, high = _LATENCY
    return one.metrics[low] > other.metrics[high] or other.metrics[low] > one.metrics[high]


class Told:
    """Which finalists of a run differ in a metric by more than chance.

    Args:
        directory: of the run, where the predictions of the finalists are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._right: dict[int, np.ndarray[Any, np.dtype[np.bool_]] | None] = {}

    def apart(self, metric: str, one: Trial, other: Trial) -> bool:
        """Whether they do: accuracy by McNemar's test on the same images, latency by interval, all else exactly."""
        if metric == "latency_ms":
            return _told_by_latency(one, other)
        if metric == "val_accuracy":
            right, beside = self._predictions(one.number), self._predictions(other.number)
            if right is not None and beside is not None and len(right) == len(beside):
                return told_apart(right, beside)
        return one.metrics[metric] != other.metrics[metric]

    def group(self, metric: str, trial: Trial, others: Sequence[Trial]) -> list[int]:
        """The numbers of those `others` that cannot be told from `trial`."""
        return [t.number for t in others if t.number != trial.number and not self.apart(metric, trial, t)]

    def _predictions(self, number: int) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        if number not in self._right:
            try:
                self._right[number] = load_right(self._directory / trial_folder(number))
            except SlimsearchError:  # a function's or a table's trial has none
                self._right[number] = None
        return self._right[number]


@dataclass(frozen=True)
class Foretold:
    """How the latencies that were predicted in the search came true.

    Attributes:
        files: finalists whose latency was predicted, and measured at the end.
        rank_correlation: Spearman's between both; None for fewer than three.
        median_error: of the prediction, relative to the measured latency.
    """

    files: int
    rank_correlation: float | None
    median_error: float

    def __str__(self) -> str:
        rank = "" if self.rank_correlation is None else f"rank correlation (Spearman) {self.rank_correlation:.2f}, "
        return (
            f"latencies predicted in the search, compared with those measured at the end: {rank}median error "
            f"{100 * self.median_error:.1f}%, over {self.files} files"
        )


def foretold(trials: Sequence[Trial]) -> Foretold | None:
    """Of the finalists; None where nothing was predicted."""
    predicted = [t for t in trials if t.metrics.get("latency_predicted") and "latency_ms" in t.final]
    if not predicted:
        return None
    from scipy.stats import spearmanr

    pairs = [(t.metrics["latency_ms"], t.final["latency_ms"]) for t in predicted]
    errors = [abs(before - measured) / measured for before, measured in pairs]
    correlation = float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) > 2 else None
    return Foretold(len(pairs), correlation, median(errors))


def over_seeds(trial: Trial, trials: Sequence[Trial], metrics: Sequence[str]) -> dict[str, Any] | None:
    """A finalist's accuracies and `metrics` over its trainings with different seeds; None where there was one."""
    again = [t.finalised() for t in repetitions(trial, trials)]
    if not again:
        return None
    found: dict[str, Any] = {"trainings": 1 + len(again), "trials": [trial.number, *(t.number for t in again)]}
    for name in dict.fromkeys((*_ACCURACIES, *metrics)):
        values = [t.metrics[name] for t in (trial, *again) if name in t.metrics]
        if len(values) == 1 + len(again) and name != "latency_ms":  # which is not measured together
            found[name] = {"mean": mean(values), "standard_deviation": stdev(values), "values": values}
    return found
