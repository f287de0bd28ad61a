"""Constrained dominance and ranking of observations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from slimsearch.strategies.samplers._sampler import Observation


def covers(one: Observation, other: Observation) -> bool:
    """Whether `one` has less violation than `other`, or the same violation and no loss above the other's.

    Source: constrained dominance, Deb et al. 2002. Both must have losses.
    """
    assert one.losses is not None
    assert other.losses is not None
    if one.violation != other.violation:
        return one.violation < other.violation
    return all(a <= b for a, b in zip(one.losses, other.losses, strict=True))


def standings(observations: Sequence[Observation]) -> list[tuple[float, float, float]]:
    """A sort key for each of `observations`, all with losses; less is better.

    The key is the violation, then the only loss or, with several losses, the Pareto rank and the negative crowding
    distance (NSGA-II, Deb et al. 2002).
    """
    keys = [(o.violation, 0.0, 0.0) for o in observations]
    feasible = [i for i, o in enumerate(observations) if o.violation <= 0]
    losses = np.array([observations[i].losses for i in feasible], dtype=float)  # (feasible, objectives)
    if not feasible:
        return keys
    if losses.shape[1] == 1:
        ranks, distances = losses[:, 0], np.zeros(len(losses))
    else:
        import moocore

        ranks, distances = moocore.pareto_rank(losses), np.zeros(len(losses))
        for rank in np.unique(ranks):
            distances[ranks == rank] = crowding(losses[ranks == rank])
    for i, rank, distance in zip(feasible, ranks, distances, strict=True):
        keys[i] = (0.0, float(rank), -float(distance))
    return keys


def crowding(losses: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n, objectives) losses of one front -> (n,) crowding distances, infinite at the ends of each axis."""
    distances = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        width = column[order[-1]] - column[order[0]]
        if not width > 0:
            continue
        distances[order[[0, -1]]] = np.inf
        distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / width
    return distances
