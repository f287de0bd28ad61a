"""What is better: objectives, hard limits, the Pareto front, and the weighted product."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError

Metrics = Mapping[str, float]

DIRECTIONS = {
    "val_accuracy": "maximize",
    "latency_ms": "minimize",
    "size_kib": "minimize",
    "params": "minimize",
    "macs": "minimize",
    "val_loss": "minimize",
}


@dataclass(frozen=True)
class Objective:
    """A metric and which way it is better: "maximize" or "minimize"."""

    metric: str
    direction: str

    @classmethod
    def parse(cls, text: str) -> Objective:
        """The objective that ``latency_ms``, ``energy:min`` or ``f1:max`` names.

        Raises:
            SlimsearchError: the direction is neither known nor given.
        """
        metric, _, given = text.strip().partition(":")
        names = {"": DIRECTIONS.get(metric), "min": "minimize", "max": "maximize"}
        direction = names.get(given)
        if metric.startswith("test_"):
            raise SlimsearchError(f"objective '{metric}': the test split is never searched on; use val_accuracy")
        if direction is None:
            raise SlimsearchError(
                f"objective '{text}' needs a direction ('{metric or 'name'}:min' or '{metric or 'name'}:max'); "
                f"without one: {', '.join(DIRECTIONS)}"
            )
        return cls(metric, direction)

    def loss(self, metrics: Metrics) -> float:
        """The metric with its sign such that less is better."""
        return -metrics[self.metric] if self.direction == "maximize" else metrics[self.metric]


@dataclass(frozen=True)
class Limit:
    """A bound that a candidate must keep.

    Attributes:
        metric: what is bounded.
        bound: the bound itself is allowed.
        upper: the bound is a maximum, else a minimum.
        flag: what the user calls it.
    """

    metric: str
    bound: float
    upper: bool
    flag: str

    def broken(self, metrics: Metrics) -> str | None:
        """Why `metrics` breaks the limit, or None; a metric that is not known yet breaks nothing."""
        value = metrics.get(self.metric)
        if value is None or (value <= self.bound if self.upper else value >= self.bound):
            return None
        return f"{self.metric} {value:.6g} {'exceeds' if self.upper else 'is below'} {self.flag} {self.bound:g}"

    def excess(self, metrics: Metrics) -> float:
        """By how much `metrics` breaks the limit; 0 or less: not at all."""
        value = metrics.get(self.metric, self.bound)
        return value - self.bound if self.upper else self.bound - value


def losses(objectives: Sequence[Objective], metrics: Sequence[Metrics]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(len(metrics), len(objectives)) matrix in which less is better everywhere."""
    rows = [[objective.loss(m) for objective in objectives] for m in metrics]
    return np.array(rows, dtype=float).reshape(len(metrics), len(objectives))


def ranks(objectives: Sequence[Objective], metrics: Sequence[Metrics]) -> list[int]:
    """Front of each: 0 where nothing dominates it, 1 where only rank 0 does, and so on. Equal ones share a rank."""
    import moocore

    if not metrics:
        return []
    return [int(rank) for rank in moocore.pareto_rank(losses(objectives, metrics))]


def front(objectives: Sequence[Objective], metrics: Sequence[Metrics]) -> list[int]:
    """Positions of those that no other dominates; of equal ones, all."""
    return [position for position, rank in enumerate(ranks(objectives, metrics)) if rank == 0]


def hypervolume(
    objectives: Sequence[Objective], metrics: Sequence[Metrics], scale: Sequence[Metrics] | None = None
) -> float:
    """Share of the box between ideal and nadir that is dominated; 0 for an empty list.

    Args:
        objectives: at least one.
        metrics: the set to score.
        scale: the set whose ideal and nadir span the box, `metrics` itself by default. The reference point lies
            a tenth of the box beyond the nadir, so that the extremes count.
    """
    if not metrics:
        return 0.0
    return _volume(losses(objectives, metrics), losses(objectives, scale if scale is not None else metrics))


def hypervolumes(
    objectives: Sequence[Objective], metrics: Sequence[Metrics], scale: Sequence[Metrics] | None = None
) -> list[float]:
    """`hypervolume` of the first one, the first two, ... of `metrics`, on the scale of all of them or of `scale`."""
    found: list[float] = []
    points = losses(objectives, metrics)
    span = points if scale is None else losses(objectives, scale)
    front = points[:0]
    for point in points:
        if (front <= point).all(axis=1).any():
            found.append(found[-1])  # nothing that is dominated adds volume
            continue
        front = np.concatenate([front[~(point <= front).all(axis=1)], point[None]])
        found.append(_volume(front, span))
    return found


def _volume(points: np.ndarray[Any, np.dtype[np.float64]], span: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    import moocore

    ideal, nadir = span.min(axis=0), span.max(axis=0)
    width = np.where(nadir > ideal, nadir - ideal, 1.0)
    reference = np.full(points.shape[1], 1.1)
    scaled = np.clip((points - ideal) / width, 0.0, 1.1)
    return float(moocore.hypervolume(scaled, ref=reference) / np.prod(reference))


@dataclass(frozen=True)
class WeightedProduct:
    """One number from several metrics, more is better.

    Source: MnasNet (Tan et al. 2019), equation 2: ``accuracy * (latency / target)^w``, with a factor for each
    minimised metric, and with the soft exponent (the same on both sides of the target).

    Attributes:
        targets: of each minimised metric.
        weights: exponent of each minimised metric; MnasNet's -0.07 where none is given.
    """

    objectives: tuple[Objective, ...]
    targets: Metrics
    weights: Metrics

    DEFAULT_WEIGHT = -0.07

    def score(self, metrics: Metrics) -> float:
        """The product over all objectives."""
        product = 1.0
        for objective in self.objectives:
            value = metrics[objective.metric]
            if objective.direction == "maximize":
                product *= value
            elif value > 0:
                weight = self.weights.get(objective.metric, self.DEFAULT_WEIGHT)
                product *= (value / self.targets[objective.metric]) ** weight
        return product


def select(
    objectives: Sequence[Objective], metrics: Sequence[Metrics], count: int, product: WeightedProduct | None = None
) -> list[int]:
    """Positions of the `count` best.

    With a weighted product, those of the highest score. Otherwise from the front: first the best in the first
    objective, then whichever adds most hypervolume; when the front is used up, from the next one.
    """
    if product is not None:
        order = sorted(range(len(metrics)), key=lambda i: (-product.score(metrics[i]), i))
        return order[:count]
    chosen: list[int] = []
    left = dict(enumerate(ranks(objectives, metrics)))
    while left and len(chosen) < count:
        best_rank = min(left.values())
        pool = [position for position, rank in left.items() if rank == best_rank]
        if chosen:
            gains = [
                (-hypervolume(objectives, [metrics[i] for i in (*chosen, position)], metrics), position)
                for position in pool
            ]
            pick = min(gains)[1]
        else:
            pick = min(pool, key=lambda i: (objectives[0].loss(metrics[i]), i))
        chosen.append(pick)
        del left[pick]
    return chosen


def finite(metrics: Metrics) -> str | None:
    """Name of the first metric that is no finite number, or None."""
    return next((name for name, value in metrics.items() if not math.isfinite(value)), None)
