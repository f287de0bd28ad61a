"""What a share of images says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimsearch.evaluators import told_apart, wilson


@pytest.mark.parametrize(
    ("share", "images", "interval"),
    [(0.5, 10, (0.2366, 0.7634)), (0.0, 10, (0.0, 0.2775)), (1.0, 10, (0.7225, 1.0)), (0.985, 1000, (0.9754, 0.9909))],
)
def test_wilson_s_interval_as_it_is_tabulated(share: float, images: int, interval: tuple[float, float]) -> None:
    assert wilson(share, images) == pytest.approx(interval, abs=1e-4)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_narrows(case: tuple[int, int]) -> None:
    right, images = case
    low, high = wilson(right / images, images)
    assert 0 <= low <= right / images + 1e-12
    assert right / images - 1e-12 <= high <= 1
    wider = wilson(right / images, 4 * images)
    assert wider[1] - wider[0] < high - low


def test_told_apart_only_by_images_that_changed_sides() -> None:
    one = np.array([True] * 95 + [False] * 5)
    assert not told_apart(one, one)
    other = one.copy()
    other[:5] = False  # 5 lost, none won: p = 0.0625
    assert not told_apart(one, other)
    other[5] = False  # 6 lost: p = 0.03125
    assert told_apart(one, other)
    assert told_apart(other, one)
    other[95:] = True  # 6 lost, 5 won
    assert not told_apart(one, other)
