"""How a run stands, in a few numbers."""

from __future__ import annotations

from collections import Counter

from evaluators import hypervolume
from experiments.ranking import Ranking
from experiments.record import Record
from experiments.trial import COMPLETE, SUBNET
from strategies import Figures


def figures(ranking: Ranking, record: Record) -> Figures:
    """The figures of everything in `record`, compression too; weights that were borrowed count for nothing."""
    complete = [t.metrics for t in record.trials if t.state == COMPLETE and t.kind != SUBNET]
    feasible = [t.metrics for t in ranking.feasible(record.trials)]
    best = {
        objective.metric: min(feasible, key=objective.loss)[objective.metric]
        for objective in ranking.objectives
        if feasible
    }
    volume = hypervolume(ranking.objectives, feasible, complete) if feasible else None
    return Figures(dict(Counter(t.state for t in record.trials)), best, volume)
