"""Candidates that cannot be on the front whatever their training gives: seen from what they will cost, beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import COMPLETE, Trial
from slimsearch.search_spaces import Candidate

_ACCURACY = "val_accuracy"
_STANDARD_ERRORS = 2.0
# What two measurements of the same file may differ by.
_LATENCY_TOLERANCE = 0.03


def foregone(ranking: Ranking, candidate: Candidate, known: Mapping[str, float], trials: Iterable[Trial]) -> str | None:
    """Why a candidate is not worth its training, or None.

    Where recipes are searched too, an architecture comes again with another recipe. What compression leaves of its
    accuracy is taken to be no more than the best that this architecture has had, trained alike, with or without a
    recipe, and two standard errors of it; what the file costs is known exactly, but for latency, which may have been
    measured three hundredths too high. A candidate that is dominated even so is foregone.

    Args:
        ranking: says what is better.
        candidate: is about to be trained.
        known: what it costs.
        trials: of the run.
    """
    unknown = [objective for objective in ranking.objectives if objective.metric not in known]
    if ranking.weighted or [objective.metric for objective in unknown] != [_ACCURACY]:
        return None
    trials = [t for t in trials if t.state == COMPLETE]
    alike = [t for t in trials if _trained_alike(t.candidate, candidate)]
    best = max((accuracy for t in alike for accuracy in _accuracies(t)), default=None)
    if best is None:
        return None
    images = max(t.metrics.get("val_images", 0.0) for t in alike)
    error = math.sqrt(best * (1 - best) / images) if images else 0.0
    hoped = {**known, _ACCURACY: min(1.0, best + _STANDARD_ERRORS * error)}
    if "latency_ms" in hoped:
        hoped["latency_ms"] *= 1 - _LATENCY_TOLERANCE
    losses = [objective.loss(hoped) for objective in ranking.objectives]
    for trial in ranking.feasible(trials):
        theirs = [objective.loss(trial.metrics) for objective in ranking.objectives]
        if all(a <= b for a, b in zip(theirs, losses, strict=True)) and theirs != losses:
            return (
                f"dominated by trial {trial.number} even at {100 * hoped[_ACCURACY]:.2f}% accuracy: its architecture "
                f"has had {100 * best:.2f}%"
            )
    return None


def _trained_alike(one: Candidate, other: Candidate) -> bool:
    return one.architecture == other.architecture and one.training == other.training


def _accuracies(trial: Trial) -> Iterable[float]:
    """Of its file, and after each epoch on the way there."""
    yield trial.metrics[_ACCURACY]
    yield from (point[_ACCURACY] for point in trial.curve if _ACCURACY in point)
