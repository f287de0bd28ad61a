"""Asynchronous successive halving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slimsearch.strategies.schedulers._rungs import pause_unless_next, ranked, rungs
from slimsearch.strategies.schedulers._scheduler import Decision, TrialProgress, check


@dataclass(frozen=True)
class Asha:
    """Trials pause at rungs; a free worker promotes one that is in the best 1/eta of its rung, else begins a new one.

    Source: Li et al. 2020, "A system for massively parallel hyperparameter tuning", Algorithm 2; for several
    objectives MO-ASHA, Schmucker et al. 2021 (see `order`). Differences: a promoted trial continues from its
    checkpoint; if no trial can begin, none runs and none is complete, the best of the highest rung continues; a stopped
    trial counts in its next rung, behind all others.

    The losses at a rung are from the middle of the learning-rate cycle: they order trials, but do not predict final
    losses.

    Attributes:
        eta: one trial in `eta` is promoted.
        min_epochs: the lowest first rung.
    """

    eta: int = 3
    min_epochs: int = 1

    def __post_init__(self) -> None:
        check("eta", self.eta, 2)
        check("min_epochs", self.min_epochs, 1)

    def after_epoch(self, trial: TrialProgress, trials: Sequence[TrialProgress], epochs: int) -> Decision:
        if trial.epochs >= epochs or trial.epochs not in rungs(epochs, self.eta, self.min_epochs):
            return Decision.CONTINUE
        return pause_unless_next(self, trial, trials, epochs)

    def resume(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> int | None:
        steps = [0, *rungs(epochs, self.eta, self.min_epochs), epochs]
        for before, rung, after in reversed(list(zip(steps, steps[1:], steps[2:], strict=False))):
            if not any(_waits(t, rung, after) for t in trials):
                continue
            arrived = sum(t.epochs >= rung or (t.state == "stopped" and t.epochs > before) for t in trials)
            for trial in ranked(trials, rung)[: arrived // self.eta]:
                if _waits(trial, rung, after):
                    return trial.number
        below = [t.number for t in trials if _waits(t, 0, steps[1])]  # paused with other options
        if below:
            return min(below)
        if more or any(t.state in ("running", "complete") for t in trials):
            return None
        highest = max((rung for rung in steps[1:-1] if any(t.epochs >= rung for t in _paused(trials))), default=None)
        return None if highest is None else ranked(_paused(trials), highest)[0].number

    def may_begin(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> bool:
        return more


def _waits(trial: TrialProgress, rung: int, after: int) -> bool:
    return trial.state == "paused" and rung <= trial.epochs < after


def _paused(trials: Sequence[TrialProgress]) -> list[TrialProgress]:
    return [t for t in trials if t.state == "paused"]
