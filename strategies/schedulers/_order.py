"""Which trials of a rung come first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def order(losses: Sequence[Sequence[float]], violations: Sequence[float]) -> list[int]:
    """Positions, best first.

    With one objective by its loss. With several by non-dominated rank, and within a rank by `epsilon_net`. What breaks
    hard limits comes after all others, the least violation first. A loss that is not a number counts as infinite; ties
    go to the earlier position.

    Source: MO-ASHA, Schmucker et al. 2021. The net begins with the best in the first objective.

    Args:
        losses: (n, objectives), less is better.
        violations: (n,), of hard limits; 0 or less: none.
    """
    kept = [position for position, violation in enumerate(violations) if not violation > 0]
    broken = [position for position, violation in enumerate(violations) if violation > 0]
    return [kept[position] for position in _by_losses([losses[position] for position in kept])] + sorted(
        broken, key=lambda position: violations[position]
    )


def _by_losses(losses: Sequence[Sequence[float]]) -> list[int]:
    if len(losses) < 2 or len(losses[0]) == 1:
        firsts = [float("inf") if loss[0] != loss[0] else loss[0] for loss in losses]
        return sorted(range(len(losses)), key=firsts.__getitem__)
    import moocore

    values = np.array(losses, dtype=float)
    values[np.isnan(values)] = np.inf
    ranks = np.asarray(moocore.pareto_rank(values))
    found: list[int] = []
    for rank in range(int(ranks.max()) + 1):
        front = np.flatnonzero(ranks == rank)
        found += [int(front[position]) for position in epsilon_net(values[front])]
    return found


def epsilon_net(losses: NDArray[np.float64]) -> list[int]:
    """Positions such that the first few are spread as widely as can be: each is the farthest from those before it.

    Losses are scaled to [0, 1] by their range, distances are Euclidean; the first is the one with the least loss in
    the first objective.

    Args:
        losses: (n, objectives), n at least 1, without nan.
    """
    # An infinite loss is as far as the largest finite one: what matters is that it does not stretch the scale.
    finite = np.isfinite(losses)
    low = np.where(finite, losses, np.inf).min(axis=0)
    high = np.where(finite, losses, -np.inf).max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    scaled = np.where(finite, (np.where(finite, losses, 0.0) - np.where(np.isfinite(low), low, 0.0)) / span, 1.0)
    last = int(np.lexsort(scaled.T[::-1])[0])
    found = [last]
    distances = np.full(len(losses), np.inf)
    for _ in range(len(losses) - 1):
        distances = np.minimum(distances, np.square(scaled - scaled[last]).sum(axis=1))
        distances[last] = -1.0  # taken
        last = int(np.argmax(distances))
        found.append(last)
    return found
