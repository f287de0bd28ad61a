"""Statistics on accuracy, and the verdict on a compression stage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimsearch.evaluators import (
    Limit,
    Objective,
    PairedDrop,
    WeightedProduct,
    judge,
    significantly_different,
    wilson,
)


@pytest.mark.parametrize(
    ("share", "images", "interval"),
    [(0.5, 10, (0.2366, 0.7634)), (0.0, 10, (0.0, 0.2775)), (1.0, 10, (0.7225, 1.0)), (0.985, 1000, (0.9754, 0.9909))],
)
def test_wilson_interval_of_known_cases(share: float, images: int, interval: tuple[float, float]) -> None:
    assert wilson(share, images) == pytest.approx(interval, abs=1e-4)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_narrows(case: tuple[int, int]) -> None:
    right, images = case
    low, high = wilson(right / images, images)
    assert 0 <= low <= right / images + 1e-12
    assert right / images - 1e-12 <= high <= 1
    wider = wilson(right / images, 4 * images)
    assert wider[1] - wider[0] < high - low


def test_only_images_that_changed_sides_make_a_difference() -> None:
    one = np.array([True] * 95 + [False] * 5)
    assert not significantly_different(one, one)
    other = one.copy()
    other[:5] = False  # 5 lost, none won: p = 0.0625
    assert not significantly_different(one, other)
    other[5] = False  # 6 lost: p = 0.03125
    assert significantly_different(one, other)
    assert significantly_different(other, one)
    other[95:] = True  # 6 lost, 5 won
    assert not significantly_different(one, other)


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


def test_a_smaller_file_that_is_slower_is_kept_where_size_counts() -> None:
    slower = {**SMALLER, "latency_ms": 2.0, "latency_low_ms": 1.9, "latency_high_ms": 2.1}
    assert judge(BEFORE, slower, NO_DROP, max_drop=0.5).kept
    # The ONNX file is larger, the constants of the C file are smaller.
    flash = {**slower, "size_kib": BEFORE["size_kib"] + 1, "flash_kib": 1.0}
    verdict = judge({**BEFORE, "flash_kib": 3.0}, flash, NO_DROP, max_drop=0.5)
    assert verdict.kept
    assert "3.00x smaller in flash" in verdict.reason
    verdict = judge(BEFORE, slower, NO_DROP, max_drop=0.5, size_counts=False)
    assert not verdict.kept
    assert "weight_only" in verdict.reason
    assert judge(BEFORE, SMALLER, NO_DROP, max_drop=0.5, size_counts=False).kept, "no slower"


@pytest.mark.parametrize(("points", "kept"), [(0.5, True), (0.51, False), (-1.0, True)])
def test_the_drop_itself_is_compared(points: float, kept: bool) -> None:
    verdict = judge(BEFORE, FASTER, PairedDrop(points, points - 1, points + 1), max_drop=0.5)
    assert verdict.kept == kept
    assert ("--max-drop 0.5" in verdict.reason) == (not kept)


def test_a_gain_within_the_interval_does_not_count() -> None:
    barely = {**BEFORE, "latency_ms": 0.995, "latency_low_ms": 0.985, "latency_high_ms": 1.0}
    verdict = judge(BEFORE, barely, NO_DROP, max_drop=0.5)
    assert not verdict.kept


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


def test_a_stage_without_a_cost_gain_must_gain_accuracy() -> None:
    assert not judge(BEFORE, BEFORE, PairedDrop(-0.2, -0.5, 0.1), max_drop=0.5, changes_cost=False).kept
    assert judge(BEFORE, BEFORE, PairedDrop(-0.8, -1.2, -0.3), max_drop=0.5, changes_cost=False).kept


def test_a_drop_reads_as_a_change_with_its_interval() -> None:
    assert str(PairedDrop(0.8, -0.23, 1.83)) == "-0.80 points (95% interval -1.83 to +0.23)"
    assert str(PairedDrop(-5.8, -9.19, -2.37)) == "+5.80 points (95% interval +2.37 to +9.19)"
    assert str(PairedDrop(0.0, -0.3, 0.3)) == "+0.00 points (95% interval -0.30 to +0.30)"
