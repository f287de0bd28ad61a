"""Rungs: the epochs after which trials are compared, and the order of the trials there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from slimsearch.strategies.schedulers._scheduler import Decision, Scheduler, TrialProgress, without_nan


def rungs(epochs: int, eta: int, min_epochs: int) -> list[int]:
    """`epochs` divided by `eta` once, twice, ..., down to no less than `min_epochs`; ascending, rounded half up.

    81, 3 and 1 give 1, 3, 9, 27, as in the papers. Rungs are computed from the top and not from `min_epochs`, so that
    for any number of epochs one trial in `eta` takes the last step, which costs the most.
    """
    count = 0
    while epochs >= min_epochs * eta ** (count + 1):
        count += 1
    return [(2 * epochs + eta**k) // (2 * eta**k) for k in range(count, 0, -1)]


def ranked(trials: Sequence[TrialProgress], rung: int) -> list[TrialProgress]:
    """The trials that reached `rung` and did not stop there, best first by their losses there."""
    arrived = sorted(
        (t for t in trials if t.epochs >= rung and not (t.state == "stopped" and t.epochs == rung)),
        key=lambda t: t.number,
    )
    return [arrived[i] for i in order([t.losses[rung - 1] for t in arrived], [t.violation for t in arrived])]


def pause_unless_next(
    scheduler: Scheduler, trial: TrialProgress, trials: Sequence[TrialProgress], epochs: int
) -> Decision:
    """The decision at a rung: pause, unless the trial would be resumed at once."""
    paused = replace(trial, state="paused")
    others = [t for t in trials if t.number != trial.number]
    next_number = scheduler.resume([*others, paused], epochs, more=True)
    return Decision.CONTINUE if next_number == trial.number else Decision.PAUSE


def order(losses: Sequence[Sequence[float]], violations: Sequence[float]) -> list[int]:
    """Positions, best first.

    One objective orders by its loss; several order by non-dominated rank and, within a rank, by `epsilon_net`.
    Infeasible trials come after all others, the least violation first. NaN counts as infinite; ties go to the earlier
    position.

    Source: MO-ASHA, Schmucker et al. 2021. The net begins with the best in the first objective.

    Args:
        losses: (n, objectives), less is better.
        violations: (n,) violations of hard limits; 0 or less for none.
    """
    feasible = [position for position, violation in enumerate(violations) if not violation > 0]
    infeasible = [position for position, violation in enumerate(violations) if violation > 0]
    best_first = [feasible[position] for position in _by_losses([losses[position] for position in feasible])]
    return best_first + sorted(infeasible, key=violations.__getitem__)


def _by_losses(losses: Sequence[Sequence[float]]) -> list[int]:
    if len(losses) < 2 or len(losses[0]) == 1:
        firsts = [float("inf") if loss[0] != loss[0] else loss[0] for loss in losses]
        return sorted(range(len(losses)), key=firsts.__getitem__)
    import moocore

    values = without_nan(losses)
    ranks = np.asarray(moocore.pareto_rank(values))
    found: list[int] = []
    for rank in range(int(ranks.max()) + 1):
        front = np.flatnonzero(ranks == rank)
        found += [int(front[position]) for position in epsilon_net(values[front])]
    return found


def epsilon_net(losses: NDArray[np.float64]) -> list[int]:
    """Positions in farthest-first order: each is the farthest from those before it.

    Losses are scaled to [0, 1] by their range, and distances are Euclidean. The first position is the one with the
    least loss in the first objective.

    Args:
        losses: (n, objectives), n at least 1, without NaN.
    """
    # An infinite loss counts as the largest finite one, so that it does not stretch the scale.
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
