"""Fidelity of trials: passes the progress of a search to a scheduler, and its decisions back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import COMPLETE, PAUSED, RUNNING, STOPPED, Trial
from slimsearch.search_spaces import Choice, Point
from slimsearch.strategies.schedulers import Decision, Exploiting, Scheduler, TrialProgress

_STATES: dict[str, Literal["running", "paused", "complete", "stopped"]] = {
    RUNNING: "running",
    PAUSED: "paused",
    COMPLETE: "complete",
    STOPPED: "stopped",
}


class Fidelity:
    """Asks a scheduler how far trials are trained.

    Only objectives that are known during training count: metrics that are reported after each epoch, and costs that
    are exact from the start. With the weighted product, its score counts once its targets are fixed, and accuracy until
    then.

    Of a candidate with a recipe, the training of the uncompressed network counts, and the costs of the compressed one.
    A trial whose network another trial has trained is not compared.

    Args:
        scheduler: decides which trials continue.
        ranking: of the trials.
        epochs: of a full training.
        costs: names of metrics that are known before training.
    """

    def __init__(self, scheduler: Scheduler, ranking: Ranking, epochs: int, costs: Sequence[str]) -> None:
        self._scheduler, self._ranking, self._epochs = scheduler, ranking, epochs
        self._costs = frozenset(costs)
        self._trials: dict[int, TrialProgress] = {}

    def rank_by(self, ranking: Ranking, trials: Iterable[Trial]) -> None:
        """Switch to another ranking; `trials` are all trials of the search."""
        self._ranking = ranking
        for trial in trials:
            self.update(trial)

    def update(self, trial: Trial) -> None:
        """Update a trial that changed."""
        state = _STATES.get(trial.state)
        if state is None or (trial.curve and trial.curve[0]["epoch"] > self._epochs):
            self._trials.pop(trial.number, None)
        else:
            costs = {**trial.metrics, **trial.known}
            exact = {name: value for name, value in costs.items() if name in self._costs}
            losses = tuple(self._losses({**exact, **point}) for point in _every_epoch(trial.curve)[: self._epochs])
            violation = self._ranking.violation(costs)
            self._trials[trial.number] = TrialProgress(trial.number, losses, state, violation)

    def after_epoch(self, trial: Trial) -> Decision:
        """Whether a trial continues, pauses or stops after its last epoch."""
        self.update(trial)
        progress = self._trials.get(trial.number)
        if progress is None:
            return Decision.CONTINUE
        return self._scheduler.after_epoch(progress, list(self._trials.values()), self._epochs)

    def resume(self, more: bool, own: Callable[[int], bool] = lambda number: True) -> int | None:
        """The number of the next paused trial to resume, among those that are `own`; `more`: new trials may follow."""
        trials = dict(self._trials)
        while (number := self._scheduler.resume(list(trials.values()), self._epochs, more)) is not None:
            if own(number):
                return number
            trials[number] = replace(trials[number], state="running")  # the driver with its checkpoint resumes it
        return None

    def exploit(self, more: bool) -> tuple[int, int] | None:
        """The numbers of a paused trial to stop and of the trial to copy in its place, or None."""
        if not isinstance(self._scheduler, Exploiting):
            return None
        return self._scheduler.exploit(list(self._trials.values()), self._epochs, more)

    def perturbed(self, choices: Iterable[Choice], point: Point, rng: np.random.Generator) -> dict[str, Any]:
        """The point of a copied trial, with perturbed hyper-parameters."""
        assert isinstance(self._scheduler, Exploiting)
        return self._scheduler.perturbed(choices, point, rng)

    def due(self, more: bool) -> bool:
        """Whether a paused trial should resume now."""
        return self._scheduler.resume(list(self._trials.values()), self._epochs, more) is not None

    def may_begin(self, more: bool) -> bool:
        """Whether a new trial may start now."""
        return self._scheduler.may_begin(list(self._trials.values()), self._epochs, more)

    def _losses(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        objectives = self._ranking.objectives
        if self._ranking.weighted:
            if self._ranking.targets and all(o.metric in metrics for o in objectives):
                product = self._ranking.product(())
                assert product is not None
                return (-product.score(metrics),)
            return (objectives[0].loss(metrics),) if objectives[0].metric in metrics else (0.0,)
        losses = tuple(o.loss(metrics) for o in objectives if o.metric in metrics)
        if not losses:
            names = ", ".join(o.metric for o in objectives)
            raise SlimsearchError(f"--scheduler compares candidates after an epoch, and none of {names} is known then")
        return losses


def _every_epoch(curve: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """Metrics of each epoch up to the last; an epoch that a killed process did not record gets those of the next."""
    points: list[Mapping[str, float]] = []
    for point in curve:
        points += [point] * (int(point["epoch"]) - len(points))
    return points
