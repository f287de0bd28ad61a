"""Whether a stage of compression is kept, from measurements of the files before and after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimsearch.evaluators.objective import Limit, Metrics, WeightedProduct

_Z95 = 1.959964


@dataclass(frozen=True)
class PairedDrop:
    """How much accuracy fell between two classifiers of the same images, in percentage points.

    The interval is the 95% one of Agresti and Min (2005) for paired proportions: half an image is added to each
    of the four cells, so that it has a width even where no image changed sides.
    """

    points: float
    low: float
    high: float

    @classmethod
    def between(cls, before: Sequence[bool] | Any, after: Sequence[bool] | Any) -> PairedDrop:
        """From whether each image was classified rightly, before and after."""
        right_before, right_after = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
        count = len(right_before)
        lost = int((right_before & ~right_after).sum())
        won = int((~right_before & right_after).sum())
        n, b, c = count + 2, lost + 0.5, won + 0.5
        middle = (b - c) / n
        half = _Z95 * math.sqrt((b + c) - (b - c) ** 2 / n) / n
        return cls(100 * (lost - won) / count, 100 * (middle - half), 100 * (middle + half))

    def __str__(self) -> str:
        return f"{self.points:+.2f} points [{self.low:+.2f}, {self.high:+.2f}]"


@dataclass(frozen=True)
class Verdict:
    """Kept or taken back, and why, in a line."""

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
) -> Verdict:
    """Keep a stage that loses no more than `max_drop` points and gains in what it is for.

    Args:
        before, after: metrics of the two files; the latencies (``latency_ms`` and its interval) of one interleaved
            measurement.
        drop: accuracy lost on the validation split.
        max_drop: in percentage points; compared with the drop itself, the interval is for the reader.
        limits: hard limits that the result must keep.
        product: with a weighted objective, its score must rise too.
        changes_cost: latency or size must gain beyond their measurement; else accuracy must, beyond its interval.
    """
    broken = [reason for limit in limits if (reason := limit.broken(after))]
    if broken:
        return Verdict(False, broken[0])
    if drop.points > max_drop + 1e-9:
        return Verdict(False, f"accuracy fell {drop}, more than --max-drop {max_drop:g}")
    faster = after["latency_high_ms"] < before["latency_low_ms"]
    smaller = after["size_kib"] < before["size_kib"]
    speed = f"{before['latency_ms'] / after['latency_ms']:.2f}x as fast"
    size = f"{before['size_kib'] / after['size_kib']:.2f}x smaller"
    if changes_cost and not (faster or smaller):
        return Verdict(False, f"neither faster ({speed}) nor smaller ({size})")
    if not changes_cost and not drop.high < 0:
        return Verdict(False, f"accuracy did not rise beyond its interval: drop {drop}")
    if product is not None and product.score(after) <= product.score(before):
        return Verdict(False, f"score {product.score(after):.4f} is not above {product.score(before):.4f}")
    return Verdict(True, f"accuracy drop {drop}, {speed}, {size}")
