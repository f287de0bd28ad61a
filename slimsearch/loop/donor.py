"""The trained network whose weights another one begins with."""

from __future__ import annotations

from collections.abc import Iterable

from slimsearch.evaluators import Objective
from slimsearch.record.trial import COMPLETE, Trial


def nearest(trial: Trial, others: Iterable[Trial], objective: Objective) -> Trial | None:
    """The completed one with the most choices in common, the best one of several; None: none has any.

    Args:
        trial: that is to begin; it may be among `others`.
        objective: by which one is better than another.
    """
    point = trial.candidate.architecture
    best: tuple[int, float, int] | None = None
    found = None
    for other in others:
        if other.state != COMPLETE or other.number == trial.number:
            continue
        theirs = other.candidate.architecture
        common = sum(label in theirs and theirs[label] == value for label, value in point.items())
        rank = common, -objective.loss(other.metrics), -other.number
        if common and (best is None or rank > best):
            best, found = rank, other
    return found
