"""Early end of a search by ``--stop-at`` and ``--patience``, and the error of a search without a result."""

from __future__ import annotations

from collections.abc import Mapping

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DIRECTIONS
from slimsearch.options.configuration import pairs
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.trial import COMPLETE, COMPRESSION, FAILED, PAUSED, SEARCH, SUBNET, Trial


class Stopping:
    """Ends a search that has reached its goal, or that no longer improves.

    Args:
        ranking: of the trials.
        goal: metrics that a single feasible candidate must reach; empty: no goal.
        patience: number of completed trials in a row without a gain in hypervolume (with one objective or the weighted
            product: without a better trial) after which the search ends; None: never.
    """

    def __init__(self, ranking: Ranking, goal: Mapping[str, float], patience: int | None) -> None:
        self._ranking = ranking
        self._goal = goal
        self._patience = patience
        self._directions = {**DIRECTIONS, **{o.metric: o.direction for o in ranking.objectives}}
        for metric in goal:
            if metric not in self._directions:
                raise SlimsearchError(
                    f"--stop-at names '{metric}', whose direction is unknown; known metrics: "
                    f"{', '.join(sorted(self._directions))}"
                )
        self._front: list[tuple[float, ...]] = []
        self._without_gain = 0
        self.reason: str | None = None

    @classmethod
    def of(cls, ranking: Ranking, stop_at: str | None, patience: int | None) -> Stopping:
        """The rules of ``--stop-at`` and ``--patience``."""
        return cls(ranking, pairs("stop_at", stop_at), patience)

    def update(self, trial: Trial, score: float | None) -> None:
        """Process a changed trial; `score` is that of the weighted product, if trials are ranked by it."""
        if trial.state != COMPLETE or self.reason is not None:
            return
        feasible = self._ranking.broken(trial.metrics) is None
        losses = tuple(o.loss(trial.metrics) for o in self._ranking.objectives) if score is None else (-score,)
        if feasible and not any(all(a <= b for a, b in zip(other, losses, strict=True)) for other in self._front):
            # A point that is not dominated adds volume: the reference point lies beyond all points.
            self._front = [f for f in self._front if not all(a <= b for a, b in zip(losses, f, strict=True))]
            self._front.append(losses)
            self._without_gain = 0
        else:
            self._without_gain += 1
        if feasible and self._goal and all(self._reached(trial, name) for name in self._goal):
            goal = ", ".join(f"{name}={value:g}" for name, value in self._goal.items())
            self.reason = f"trial {trial.number} has reached --stop-at {goal}"
        elif self._patience is not None and self._without_gain >= self._patience:
            gain = "better one" if len(losses) == 1 else "gain in hypervolume"
            self.reason = f"no {gain} in the last {self._without_gain} trials (--patience {self._patience})"

    def _reached(self, trial: Trial, metric: str) -> bool:
        value, goal = trial.metrics.get(metric), self._goal[metric]
        if value is None:
            return False
        return value >= goal if self._directions[metric] == "maximize" else value <= goal


def refuse_if_nothing_is_left(ranking: Ranking, record: Record) -> None:
    """Raise an error if a search ended without a feasible candidate.

    Raises:
        SlimsearchError: every trial failed, or no candidate meets the limits; the message has the best value.
    """
    if ranking.feasible([t for t in record.standing if t.kind in (SEARCH, COMPRESSION)]):
        return
    trials = [t for t in record.standing if t.kind == SEARCH]
    trials = trials or [t for t in record.trials if t.kind == SUBNET]  # if no subnet was trained
    if not trials:
        raise SlimsearchError("no candidate was begun: --timeout was over before the first one")
    failed = [t for t in trials if t.state == FAILED]
    if len(failed) == len(trials):
        raise SlimsearchError(f"all {len(failed)} trials failed; the first one: {failed[0].error}")
    if any(t.state == PAUSED for t in trials) and not any(t.state == COMPLETE for t in trials):
        raise SlimsearchError("no candidate was trained to the end: --timeout was over before; continue with --resume")
    for limit in ranking.limits:
        values = [t.metrics[limit.metric] for t in trials if limit.metric in t.metrics]
        if values and all(limit.broken({limit.metric: value}) for value in values):
            best = min(values) if limit.upper else max(values)
            raise SlimsearchError(
                f"no candidate meets {limit.flag} {limit.bound:g}: the best of {len(values)} has "
                f"{limit.metric} {best:.6g}"
            )
    flags = " and ".join(f"{limit.flag} {limit.bound:g}" for limit in ranking.limits)
    raise SlimsearchError(f"no candidate meets {flags} at once ({len(trials)} tried)")
