"""Summary of a run: best values, hypervolume, computation saved, and the error of predicted latencies."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from slimsearch.evaluators import Metrics, hypervolume, hypervolumes
from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import COMPLETE, RULED_OUT, SEARCH, SUBNET, Trial
from slimsearch.report.tables import seconds_text
from slimsearch.strategies import RunStatus


def run_status(ranking: Ranking, trials: Sequence[Trial]) -> RunStatus:
    """Best values and hypervolume over all feasible trials, compressed ones included, auxiliary ones excluded."""
    feasible = [t.metrics for t in ranking.feasible(trials)]
    best = {
        objective.metric: min(feasible, key=objective.loss)[objective.metric]
        for objective in ranking.objectives
        if feasible
    }
    volume = hypervolume(ranking.objectives, feasible, _scale(trials)) if feasible else None
    return RunStatus(dict(Counter(t.state for t in trials)), best, volume)


def hypervolume_history(ranking: Ranking, trials: Sequence[Trial]) -> list[float]:
    """The hypervolume of `run_status` after the first of the feasible `trials`, after the first two, and so on."""
    return hypervolumes(ranking.objectives, [t.metrics for t in ranking.feasible(trials)], _scale(trials))


def _scale(trials: Sequence[Trial]) -> list[Metrics]:
    return [t.metrics for t in trials if t.state == COMPLETE and t.kind != SUBNET]


@dataclass(frozen=True)
class Savings:
    """Computation that a run saved.

    Attributes:
        candidates: finished trials of the search.
        ruled_out: number of them ruled out before training.
        ruled_out_seconds: their estimated training time, from the median of the trained candidates.
        reused_seconds: time of trainings whose stored networks were reused.
    """

    candidates: int
    ruled_out: int
    ruled_out_seconds: float
    reused_seconds: float

    def __str__(self) -> str:
        sentences = []
        if self.ruled_out:
            share = 100 * self.ruled_out / self.candidates
            sentences.append(
                f"{self.ruled_out} of {self.candidates} candidates ({share:.0f}%) ruled out before training, "
                f"which saved about {_duration(self.ruled_out_seconds)}"
            )
        if self.reused_seconds:
            sentences.append(f"reusing trained networks saved {_duration(self.reused_seconds)}")
        return "; ".join(sentences)


def savings(trials: Sequence[Trial]) -> Savings | None:
    """The savings of a run, or None."""
    searched = [t for t in trials if t.kind == SEARCH and not t.unfinished]
    trained = [t.metrics["training_seconds"] for t in searched if "training_seconds" in t.metrics]
    ruled_out = sum(t.state == RULED_OUT for t in searched)
    reused = sum(t.metrics.get("seconds_saved", 0.0) for t in searched if t.state == COMPLETE)
    found = Savings(len(searched), ruled_out, ruled_out * (median(trained) if trained else 0.0), reused)
    return found if found.ruled_out or found.reused_seconds >= 1 else None


def _duration(seconds: float) -> str:
    return f"{seconds_text(seconds)} on one core"


@dataclass(frozen=True)
class LatencyPredictions:
    """Predicted latencies compared with measured ones.

    Attributes:
        files: finalists whose latency was predicted during the search and measured at the end.
        rank_correlation: Spearman's, or None for fewer than three files.
        median_error: of the prediction, relative to the measured latency.
    """

    files: int
    rank_correlation: float | None
    median_error: float

    def __str__(self) -> str:
        rank = "" if self.rank_correlation is None else f", Spearman rank correlation {self.rank_correlation:.2f}"
        return (
            f"predicted latencies of {self.files} finalists: median error {100 * self.median_error:.1f}% "
            f"of the measured latency{rank}"
        )


def latency_predictions(trials: Sequence[Trial]) -> LatencyPredictions | None:
    """Compare predicted and measured latencies of the finalists; None where nothing was predicted."""
    predicted = [t for t in trials if t.metrics.get("latency_predicted") and "latency_ms" in t.final]
    if not predicted:
        return None
    pairs = [(t.metrics["latency_ms"], t.final["latency_ms"]) for t in predicted]
    errors = [abs(before - measured) / measured for before, measured in pairs]
    return LatencyPredictions(len(pairs), spearman(pairs), median(errors))


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation; 0 if a side is constant, None for fewer than three pairs."""
    if len(pairs) < 3:
        return None
    from scipy.stats import spearmanr

    value = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    return 0.0 if math.isnan(value) else value
