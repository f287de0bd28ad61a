"""Objectives, hard limits, Pareto fronts, hypervolume, and the weighted product."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError, did_you_mean

Metrics = Mapping[str, float]
"""Values by name, with units in the names."""

DIRECTIONS = {
    "val_accuracy": "maximize",
    "val_balanced_accuracy": "maximize",
    "val_macro_f1": "maximize",
    "val_auc": "maximize",
    "val_exact_match": "maximize",
    "val_r2": "maximize",
    "val_rmse": "minimize",
    "val_mae": "minimize",
    "val_mean_iou": "maximize",
    "val_pixel_accuracy": "maximize",
    "latency_ms": "minimize",
    "energy_mj": "minimize",
    "size_kib": "minimize",
    "ram_kib": "minimize",
    "flash_kib": "minimize",
    "params": "minimize",
    "macs": "minimize",
    "val_loss": "minimize",
}
"""Directions of metrics that need none on the command line."""
COSTS = ("latency_ms", "size_kib", "params", "macs")
"""Metrics of a network that are known before training."""


@dataclass(frozen=True)
class Objective:
    """A metric and its direction, "maximize" or "minimize"."""

    metric: str
    direction: str

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Parse an objective such as ``latency_ms``, ``energy:min`` or ``f1:max``.

        Raises:
            SlimsearchError: the direction is neither given nor known, or the metric is of the test split.
        """
        metric, _, given = text.strip().partition(":")
        names = {"": DIRECTIONS.get(metric), "min": "minimize", "max": "maximize"}
        direction = names.get(given)
        if metric.startswith("test_"):
            known = f"val_{metric.removeprefix('test_')}"
            raise SlimsearchError(f"objective '{metric}': the test split is never searched on; use {known}")
        if direction is None:
            raise SlimsearchError(
                f"objective '{text}' needs a direction ('{metric or 'name'}:min' or '{metric or 'name'}:max'); "
                f"without one: {', '.join(DIRECTIONS)}{did_you_mean(metric, DIRECTIONS)}"
            )
        return cls(metric, direction)

    def loss(self, metrics: Metrics) -> float:
        """The metric, negated if it is maximized: less is better."""
        return -metrics[self.metric] if self.direction == "maximize" else metrics[self.metric]


@dataclass(frozen=True)
class Limit:
    """A hard limit on a metric.

    Attributes:
        metric: name of the metric.
        bound: the last allowed value.
        upper: whether `bound` is a maximum; otherwise a minimum.
        flag: command-line option of the limit, for messages.
    """

    metric: str
    bound: float
    upper: bool
    flag: str

    def broken(self, metrics: Metrics) -> str | None:
        """Why `metrics` violates the limit; None if it does not, or if the metric is not known yet."""
        value = metrics.get(self.metric)
        if value is None or (value <= self.bound if self.upper else value >= self.bound):
            return None
        return f"{self.metric} {value:.6g} {'exceeds' if self.upper else 'is below'} {self.flag} {self.bound:g}"

    def excess(self, metrics: Metrics) -> float:
        """Signed distance of `metrics` beyond the limit, as a fraction of the limit; positive if it is violated."""
        value = metrics.get(self.metric, self.bound)
        beyond = value - self.bound if self.upper else self.bound - value
        return beyond / (abs(self.bound) or 1.0)


def leading_metric(names: Iterable[str]) -> str | None:
    """The leading metric among `names`: the first one of the validation split, or the loss if that is the only one."""
    of_split = [name for name in names if name.startswith("val_") and name != "val_images"]
    return next((name for name in of_split if name != "val_loss"), next(iter(of_split), None))


def losses(objectives: Sequence[Objective], metrics: Sequence[Metrics]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Matrix (len(metrics), len(objectives)) of losses: less is better."""
    rows = [[objective.loss(m) for objective in objectives] for m in metrics]
    return np.array(rows, dtype=float).reshape(len(metrics), len(objectives))


def ranks(objectives: Sequence[Objective], metrics: Sequence[Metrics]) -> list[int]:
    """Pareto rank of each: 0 for the non-dominated, 1 for those dominated by rank 0 only, and so on; ties share one."""
    import moocore

    if not metrics:
        return []
    return [int(rank) for rank in moocore.pareto_rank(losses(objectives, metrics))]


def front(objectives: Sequence[Objective], metrics: Sequence[Metrics]) -> list[int]:
    """Indices of the Pareto front, including all ties."""
    return [position for position, rank in enumerate(ranks(objectives, metrics)) if rank == 0]


def hypervolume(
    objectives: Sequence[Objective], metrics: Sequence[Metrics], scale: Sequence[Metrics] | None = None
) -> float:
    """Hypervolume of `metrics` relative to the box between ideal and reference point, 0 to 1; 0 for an empty list.

    Args:
        objectives: at least one.
        metrics: the set to score.
        scale: the set whose ideal and nadir define the box; `metrics` by default. The reference point lies 10% of the
            box beyond the nadir, so that extreme points add volume.
    """
    if not metrics:
        return 0.0
    return _volume(losses(objectives, metrics), losses(objectives, scale if scale is not None else metrics))


def hypervolumes(
    objectives: Sequence[Objective], metrics: Sequence[Metrics], scale: Sequence[Metrics] | None = None
) -> list[float]:
    """`hypervolume` of each prefix of `metrics`, on the scale of all of them or of `scale`."""
    volumes: list[float] = []
    points = losses(objectives, metrics)
    span = points if scale is None else losses(objectives, scale)
    front = points[:0]
    for point in points:
        if (front <= point).all(axis=1).any():
            volumes.append(volumes[-1])  # a dominated point adds no volume
            continue
        front = np.concatenate([front[~(point <= front).all(axis=1)], point[None]])
        volumes.append(_volume(front, span))
    return volumes


def _volume(points: np.ndarray[Any, np.dtype[np.float64]], span: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    import moocore

    ideal, nadir = span.min(axis=0), span.max(axis=0)
    width = np.where(nadir > ideal, nadir - ideal, 1.0)
    reference = np.full(points.shape[1], 1.1)
    scaled = np.clip((points - ideal) / width, 0.0, 1.1)
    return float(moocore.hypervolume(scaled, ref=reference) / np.prod(reference))


@dataclass(frozen=True)
class WeightedProduct:
    """A score from several metrics; more is better.

    Source: MnasNet (Tan et al. 2019), equation 2: ``accuracy * (latency / target)^w``, with one factor per minimized
    metric, and with the soft exponent (the same on both sides of the target).

    Attributes:
        objectives: the metrics.
        targets: of each minimized metric.
        weights: exponent of each minimized metric; MnasNet's -0.07 by default.
    """

    objectives: tuple[Objective, ...]
    targets: Metrics
    weights: Metrics

    DEFAULT_WEIGHT = -0.07

    def score(self, metrics: Metrics) -> float:
        """The score of `metrics`."""
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
    """Indices of the `count` best, best first.

    With a weighted product: by score. Otherwise from the Pareto front: first the best in the first objective, then
    repeatedly the one that adds most hypervolume; then from the next front.
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


def finite_numbers(values: Any, what: str = "evaluate returned") -> dict[str, float]:
    """The metrics that an evaluation returns or reports, as finite numbers.

    Args:
        values: the metrics.
        what: which function has given them, for the message.

    Raises:
        SlimsearchError: `values` are no dict of finite numbers.
    """
    if not isinstance(values, Mapping):
        raise SlimsearchError(f"{what} {type(values).__name__}, not a dict of named numbers")
    metrics = {}
    for name, value in values.items():
        try:
            if isinstance(value, str | bytes):
                raise TypeError
            metrics[str(name)] = number = float(value)
        except Exception:  # a tensor of several elements, or any class of the user's
            one_line = " ".join(_shown(value).split())
            raise SlimsearchError(f"{what} '{name}': {one_line:.80}, which is not a number") from None
        if not math.isfinite(number):
            raise SlimsearchError(f"metric '{name}' is {number}, not a finite number")
        if not str(name).isprintable():  # such as half of a surrogate pair, which the record cannot hold
            raise SlimsearchError(f"metric {name!a} has a name that does not print")
    return metrics


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # of a user's class
        return type(value).__name__
