"""When a stage is kept."""

from __future__ import annotations

import numpy as np
import pytest

from slimsearch.evaluators import Limit, Objective, PairedDrop, WeightedProduct, judge

BEFORE = {
    "val_accuracy": 0.98, "latency_ms": 1.0, "latency_low_ms": 0.99, "latency_high_ms": 1.01, "size_kib": 100.0,
}  # fmt: skip
FASTER = {**BEFORE, "latency_ms": 0.5, "latency_low_ms": 0.49, "latency_high_ms": 0.51}
SMALLER = {**BEFORE, "size_kib": 50.0}
NO_DROP = PairedDrop(0.0, -0.3, 0.3)


def test_paired_drop_counts_images_that_changed_sides() -> None:
    before = np.array([True] * 90 + [False] * 10)
    after = before.copy()
    after[:3] = False  # lost
    after[95] = True  # won
    drop = PairedDrop.between(before, after)
    assert drop.points == pytest.approx(2.0)
    assert drop.low < 2.0 < drop.high
    # Agresti and Min by hand: n = 102, b = 3.5, c = 1.5.
    middle, half = 100 * 2 / 102, 100 * 1.959964 * (5 - 4 / 102) ** 0.5 / 102
    assert (drop.low, drop.high) == pytest.approx((middle - half, middle + half))


def test_interval_has_a_width_even_without_a_change() -> None:
    drop = PairedDrop.between([True] * 50, [True] * 50)
    assert drop.points == 0
    assert drop.low < 0 < drop.high


@pytest.mark.parametrize("after", [FASTER, SMALLER])
def test_kept_when_faster_or_smaller(after: dict[str, float]) -> None:
    verdict = judge(BEFORE, after, NO_DROP, max_drop=0.5)
    assert verdict.kept
    assert "accuracy drop" in verdict.reason


@pytest.mark.parametrize(("points", "kept"), [(0.5, True), (0.51, False), (-1.0, True)])
def test_the_drop_itself_is_compared(points: float, kept: bool) -> None:
    verdict = judge(BEFORE, FASTER, PairedDrop(points, points - 1, points + 1), max_drop=0.5)
    assert verdict.kept == kept
    if not kept:
        assert "more than --max-drop 0.5" in verdict.reason


def test_a_gain_within_the_noise_is_none() -> None:
    barely = {**BEFORE, "latency_ms": 0.995, "latency_low_ms": 0.985, "latency_high_ms": 1.0}
    verdict = judge(BEFORE, barely, NO_DROP, max_drop=0.5)
    assert not verdict.kept
    assert "neither faster" in verdict.reason


def test_limits_come_first() -> None:
    limit = Limit("size_kib", 80.0, True, "--max-size-kib")
    assert not judge(BEFORE, FASTER, NO_DROP, max_drop=0.5, limits=[limit]).kept
    assert judge(BEFORE, SMALLER, NO_DROP, max_drop=0.5, limits=[limit]).kept


def test_with_a_weighted_objective_the_score_must_rise() -> None:
    objectives = (Objective("val_accuracy", "maximize"), Objective("latency_ms", "minimize"))
    product = WeightedProduct(objectives, {"latency_ms": 1.0}, {"latency_ms": -0.01})
    worse = {**FASTER, "val_accuracy": 0.97}
    assert not judge(BEFORE, worse, PairedDrop(1, 0, 2), max_drop=2, product=product).kept
    assert judge(BEFORE, FASTER, NO_DROP, max_drop=2, product=product).kept


def test_what_only_trains_must_gain_accuracy() -> None:
    assert not judge(BEFORE, BEFORE, PairedDrop(-0.2, -0.5, 0.1), max_drop=0.5, changes_cost=False).kept
    assert judge(BEFORE, BEFORE, PairedDrop(-0.8, -1.2, -0.3), max_drop=0.5, changes_cost=False).kept
