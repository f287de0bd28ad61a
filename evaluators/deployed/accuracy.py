"""Statistics on the accuracy of deployed files: intervals, paired tests, and whether a compression stage pays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimsearch.evaluators.objective import Limit, Metrics, WeightedProduct

_Z95 = 1.959964  # standard normal quantile of a two-sided 95% interval
_SIGNIFICANCE = 0.05


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
    """Loss of accuracy from one classifier to another on the same images, in percentage points, with its 95% interval.

    Source: Agresti and Min (2005) for paired proportions; half an image is added to each of the four cells, so that the
    interval has a width even if no image changed sides.
    """

    points: float
    low: float
    high: float

    @classmethod
    def between(cls, before: Sequence[bool] | Any, after: Sequence[bool] | Any) -> PairedDrop:
        """From whether each image was classified correctly before and after, (N,) bool."""
        lost, gained = _changed(before, after)
        count = len(before)
        n, b, c = count + 2, lost + 0.5, gained + 0.5
        middle = (b - c) / n
        half = _Z95 * math.sqrt((b + c) - (b - c) ** 2 / n) / n
        return cls(100 * (lost - gained) / count, 100 * (middle - half), 100 * (middle + half))

    def __str__(self) -> str:
        """As the change of accuracy: ``-0.80 points (95% interval -1.83 to +0.23)``."""
        change, low, high = (0.0 - value for value in (self.points, self.high, self.low))
        return f"{change:+.2f} points (95% interval {low:+.2f} to {high:+.2f})"


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
    """Keep a compression stage if it loses at most `max_drop` points of accuracy and improves its target.

    Args:
        before, after: metrics of both files; ``latency_ms`` and its interval come from one interleaved measurement.
        drop: accuracy lost on the validation split.
        max_drop: in percentage points; compared with the drop itself, not with its interval.
        limits: hard limits on the result.
        product: with a weighted objective, the score must rise too.
        changes_cost: whether latency or size is the target: one of them must improve, latency by more than its
            interval. Otherwise accuracy must improve by more than its interval.
        size_counts: whether a smaller file is worth being slower: not if size is neither an objective nor limited.
    """
    violated = [reason for limit in limits if (reason := limit.broken(after))]
    if violated:
        return Verdict(False, violated[0])
    if drop.points > max_drop + 1e-9:
        return Verdict(False, f"accuracy {drop}, more than --max-drop {max_drop:g}")
    faster = after["latency_high_ms"] < before["latency_low_ms"]
    smaller = after["size_kib"] < before["size_kib"]
    speed = f"{before['latency_ms'] / after['latency_ms']:.2f}x as fast"
    size = f"{before['size_kib'] / after['size_kib']:.2f}x smaller"
    if changes_cost and not (faster or smaller):
        return Verdict(False, f"neither faster ({speed}) nor smaller ({size})")
    if changes_cost and not size_counts and after["latency_low_ms"] > before["latency_high_ms"]:
        return Verdict(
            False, f"{size} but {speed}, and size is no objective; if it counts, weight_only keeps the speed"
        )
    if not changes_cost and not drop.high < 0:
        return Verdict(False, f"accuracy {drop}: no gain beyond its interval")
    if product is not None and product.score(after) <= product.score(before):
        return Verdict(False, f"score {product.score(after):.4f}, not above {product.score(before):.4f}")
    return Verdict(True, f"accuracy {drop}, {speed}, {size}")
