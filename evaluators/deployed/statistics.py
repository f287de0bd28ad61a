"""Statistics on the metrics of deployed files: intervals, paired tests, and whether a compression stage pays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from slimsearch.evaluators.objective import Limit, Metrics, WeightedProduct
from slimsearch.evaluators.tasks import LearningTask

Array = np.ndarray[Any, np.dtype[Any]]

_Z95 = 1.959964  # standard normal quantile of a two-sided 95% interval
_SIGNIFICANCE = 0.05
_RESAMPLINGS = 400


def wilson(share: float, images: int) -> tuple[float, float]:
    """95% score interval of a proportion (Wilson 1927).

    Args:
        share: of correctly classified images, 0 to 1.
        images: sample size.
    """
    n, z = images, _Z95
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def scores(task: LearningTask, examples: Array, split: str) -> dict[str, float]:
    """The metrics of `task` on a split, and the 95% interval of the leading one.

    There is none of a proportion, nor of one number for all examples.

    The interval of a proportion is `wilson`'s; others are percentiles of a bootstrap over the examples (Efron 1979).

    Args:
        task: fitted to the data set.
        examples: see `LearningTask.examples`.
        split: "val" or "test", which the names begin with.

    Returns:
        metrics such as ``val_r2``, ``val_r2_low``, ``val_r2_high`` and ``val_rmse``.
    """
    found = {f"{split}_{name}": value for name, value in task.scores(examples).items()}
    paired, leading = examples[:, : task.paired], f"{split}_{task.leading()[0]}"
    if len(paired) > 1 and not _is_proportion(paired):
        values = [task.leading_value(paired[chosen]) for chosen in _resampled(len(paired))]
        low, high = np.percentile(values, (2.5, 97.5))
        found |= {f"{leading}_low": float(low), f"{leading}_high": float(high)}
    return found


def _is_proportion(examples: Array) -> bool:
    """Whether the leading metric is the share of the examples that are right."""
    return examples.shape[1] == 1 and len(examples) > 1 and bool(np.isin(examples, (0, 1)).all())


def _resampled(count: int) -> Iterator[Array]:
    """Indices of examples drawn with replacement, the same at every call."""
    rng = np.random.default_rng(0)
    for _ in range(_RESAMPLINGS):
        yield rng.integers(0, count, count)


def confusion(labels: Any, predictions: Any) -> list[tuple[int, int, int]]:
    """The confusion matrix without its zeros: (true class, predicted class, images), most images first.

    Args:
        labels, predictions: of the same images, (N,) int.
    """
    pairs, images = np.unique(np.stack([labels, predictions], axis=1), axis=0, return_counts=True)
    cells = [(int(true), int(predicted), int(count)) for (true, predicted), count in zip(pairs, images, strict=True)]
    return sorted(cells, key=lambda cell: (-cell[2], cell))


def significantly_different(one: Any, other: Any) -> bool:
    """Whether the accuracies of two classifiers differ, by the exact test of McNemar (1947) at the 5% level.

    Args:
        one, other: whether each of the same images was classified correctly, (N,) bool.
    """
    from scipy.stats import binomtest

    lost, gained = _changed(one, other)
    return lost + gained > 0 and float(binomtest(lost, lost + gained).pvalue) < _SIGNIFICANCE


def _changed(before: Any, after: Any) -> tuple[int, int]:
    """Images that only the first classifier got right, and images that only the second one did."""
    right_before, right_after = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    return int((right_before & ~right_after).sum()), int((~right_before & right_after).sum())


@dataclass(frozen=True)
class PairedDrop:
    """Loss of the leading metric from one network to another on the same examples, with its 95% interval.

    Attributes:
        points: the loss, in percentage points of a metric that is maximized, in percent of the first network's value of
            one that is minimized.
        low, high: the interval.
        metric: its name.
        unit: "points" or "%".
    """

    points: float
    low: float
    high: float
    metric: str = "accuracy"
    unit: str = "points"

    @classmethod
    def of(cls, task: LearningTask, before: Array, after: Array) -> PairedDrop:
        """From the paired columns of `LearningTask.examples` before and after, both (N, K).

        Proportions see `between`; others by a bootstrap over the examples (Efron 1979).
        """
        metric, direction = task.leading()
        if _is_proportion(before) and _is_proportion(after):
            return replace(cls.between(before[:, 0], after[:, 0]), metric=metric)

        def drop(one: Array, other: Array) -> float:
            first, second = task.leading_value(one), task.leading_value(other)
            return 100 * (first - second if direction == "maximize" else (second - first) / (abs(first) or 1.0))

        low, high = np.percentile([drop(before[c], after[c]) for c in _resampled(len(before))], (2.5, 97.5))
        unit = "points" if direction == "maximize" else "%"
        return cls(drop(before, after), float(low), float(high), metric, unit)

    @classmethod
    def between(cls, before: Sequence[bool] | Any, after: Sequence[bool] | Any) -> PairedDrop:
        """From whether each example was classified correctly before and after, (N,) bool.

        Source: Agresti and Min (2005) for paired proportions; half an example is added to each of the four cells, so
        that the interval has a width even if no example changed sides.
        """
        lost, gained = _changed(before, after)
        count = len(before)
        n, b, c = count + 2, lost + 0.5, gained + 0.5
        middle = (b - c) / n
        half = _Z95 * math.sqrt((b + c) - (b - c) ** 2 / n) / n
        return cls(100 * (lost - gained) / count, 100 * (middle - half), 100 * (middle + half))

    def __str__(self) -> str:
        """As the change of the metric: ``-0.80 points (95% interval -1.83 to +0.23)``.

        Of a minimized metric, more is worse: ``+0.80% (95% interval -0.23 to +1.83)``.
        """
        change, low, high = self.points, self.low, self.high
        if self.unit != "%":
            change, low, high = (0.0 - value for value in (self.points, self.high, self.low))
        text = f"{change:+.2f}{'%' if self.unit == '%' else ' points'}"
        return text if low == high else f"{text} (95% interval {low:+.2f} to {high:+.2f})"  # of one number in all


@dataclass(frozen=True)
class Verdict:
    """Whether the result of a compression stage is kept, and the reason in one line."""

    kept: bool
    reason: str


def judge(
    before: Metrics,
    after: Metrics,
    drop: PairedDrop,
    *,
    max_drop: float,
    limits: Sequence[Limit] = (),
    product: WeightedProduct | None = None,
    changes_cost: bool = True,
    size_counts: bool = True,
) -> Verdict:
    """Keep a compression stage if it loses at most `max_drop` points of the leading metric and improves its target.

    Args:
        before, after: metrics of both files; ``latency_ms`` and its interval come from one interleaved measurement.
        drop: lost on the validation split.
        max_drop: in the unit of `drop`; compared with the drop itself, not with its interval.
        limits: hard limits on the result.
        product: with a weighted objective, the score must rise too.
        changes_cost: whether latency or size is the target: one of them must improve, latency by more than its
            interval. Otherwise the leading metric must improve by more than its interval.
        size_counts: whether a smaller file is worth being slower: not if size is neither an objective nor limited.
    """
    violated = [reason for limit in limits if (reason := limit.broken(after))]
    if violated:
        return Verdict(False, violated[0])
    if drop.points > max_drop + 1e-9:
        return Verdict(False, f"{drop.metric} {drop}, more than --max-drop {max_drop:g}")
    faster = after["latency_high_ms"] < before["latency_low_ms"]
    flash = "flash_kib" in before and "flash_kib" in after
    counted = "flash_kib" if flash else "size_kib"  # of what is deployed: the C file or the ONNX file
    smaller = after[counted] < before[counted]
    speed = f"{before['latency_ms'] / after['latency_ms']:.2f}x as fast"
    size = f"{before[counted] / after[counted]:.2f}x smaller" + (" in flash" if flash else "")
    if changes_cost and not (faster or smaller):
        return Verdict(False, f"neither faster ({speed}) nor smaller ({size})")
    if changes_cost and not size_counts and after["latency_low_ms"] > before["latency_high_ms"]:
        return Verdict(
            False, f"{size} but {speed}, and size is not an objective; if it counts, weight_only keeps the speed"
        )
    if not changes_cost and not drop.high < 0:
        return Verdict(False, f"{drop.metric} {drop}: no gain beyond its interval")
    if product is not None and product.score(after) <= product.score(before):
        return Verdict(False, f"score {product.score(after):.4f}, not above {product.score(before):.4f}")
    return Verdict(True, f"{drop.metric} {drop}, {speed}, {size}")
