"""How a run stands, in a few numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from slimsearch.evaluators import Metrics, hypervolume, hypervolumes
from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import COMPLETE, SUBNET, Trial
from slimsearch.strategies import Figures


def figures(ranking: Ranking, trials: Sequence[Trial]) -> Figures:
    """The figures of all `trials`, compression too; weights that were borrowed count for nothing."""
    feasible = [t.metrics for t in ranking.feasible(trials)]
    best = {
        objective.metric: min(feasible, key=objective.loss)[objective.metric]
        for objective in ranking.objectives
        if feasible
    }
    volume = hypervolume(ranking.objectives, feasible, _scale(trials)) if feasible else None
    return Figures(dict(Counter(t.state for t in trials)), best, volume)


def volumes(ranking: Ranking, trials: Sequence[Trial]) -> list[float]:
    """The hypervolume of `figures` after the first of the feasible ones among `trials`, the first two, and so on."""
    return hypervolumes(ranking.objectives, [t.metrics for t in ranking.feasible(trials)], _scale(trials))


def _scale(trials: Sequence[Trial]) -> list[Metrics]:
    return [t.metrics for t in trials if t.state == COMPLETE and t.kind != SUBNET]
