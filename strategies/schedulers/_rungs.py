"""Rungs: the epochs after which trials are compared and most of them pause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from slimsearch.strategies.schedulers._order import order
from slimsearch.strategies.schedulers._scheduler import Decision, Progress, Scheduler


def rungs(epochs: int, eta: int, min_epochs: int) -> list[int]:
    """`epochs` divided by `eta` once, twice, ..., down to no less than `min_epochs`; rising, rounded half up.

    81, 3 and 1 give 1, 3, 9, 27, as in the papers. They start from the top and not from `min_epochs`, so that with any
    number of epochs the last step, which costs the most, is taken by one in `eta`.
    """
    count = 0
    while epochs >= min_epochs * eta ** (count + 1):
        count += 1
    return [(2 * epochs + eta**k) // (2 * eta**k) for k in range(count, 0, -1)]


def ranked(trials: Sequence[Progress], rung: int) -> list[Progress]:
    """Those that came to `rung`, best first by the losses that they had there; without those that ended there."""
    arrived = sorted(
        (t for t in trials if t.epochs >= rung and not (t.state == "stopped" and t.epochs == rung)),
        key=lambda t: t.number,
    )
    return [arrived[i] for i in order([t.losses[rung - 1] for t in arrived], [t.violation for t in arrived])]


def pause_unless_next(scheduler: Scheduler, trial: Progress, trials: Sequence[Progress], epochs: int) -> Decision:
    """The decision at a rung: pause, but for the one that would be resumed at once, which need not be loaded again."""
    paused = replace(trial, state="paused")
    others = [t for t in trials if t.number != trial.number]
    next_number = scheduler.resume([*others, paused], epochs, more=True)
    return Decision.CONTINUE if next_number == trial.number else Decision.PAUSE
