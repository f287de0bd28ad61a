"""Fronts, hypervolume, the weighted product and limits, against definitions written out here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import (
    Limit,
    Objective,
    WeightedProduct,
    front,
    hypervolume,
    hypervolumes,
    leading_metric,
    select,
)
from slimsearch.evaluators.objective import ranks

OBJECTIVES = (Objective("val_accuracy", "maximize"), Objective("latency_ms", "minimize"))

metrics = st.fixed_dictionaries(
    {"val_accuracy": st.integers(0, 8).map(lambda v: v / 8), "latency_ms": st.integers(1, 8).map(float)}
)


def dominates(one: dict[str, float], other: dict[str, float]) -> bool:
    better = one["val_accuracy"] >= other["val_accuracy"] and one["latency_ms"] <= other["latency_ms"]
    return better and one != other


@given(st.lists(metrics, min_size=1, max_size=12))
def test_the_front_is_not_dominated(found: list[dict[str, float]]) -> None:
    expected = [i for i, m in enumerate(found) if not any(dominates(o, m) for o in found)]
    assert front(OBJECTIVES, found) == expected
    assert all(rank >= 0 for rank in ranks(OBJECTIVES, found))


@given(st.lists(metrics, min_size=1, max_size=12), metrics)
def test_hypervolume_never_falls_when_something_is_added(found: list[dict[str, float]], more: dict[str, float]) -> None:
    scale = [*found, more]
    assert hypervolume(OBJECTIVES, scale, scale) >= hypervolume(OBJECTIVES, found, scale) - 1e-12
    assert 0 <= hypervolume(OBJECTIVES, scale) <= 1


def test_hypervolume_of_a_known_front() -> None:
    found = [{"val_accuracy": 1.0, "latency_ms": 2.0}, {"val_accuracy": 0.0, "latency_ms": 1.0}]
    # Scaled: (0, 1) and (1, 0), reference (1.1, 1.1): two rectangles of 1.1 x 0.1 that share 0.1 x 0.1.
    assert hypervolume(OBJECTIVES, found) == pytest.approx((2 * 1.1 * 0.1 - 0.01) / 1.21)
    assert hypervolume(OBJECTIVES, []) == 0


@given(st.lists(metrics, min_size=1, max_size=10), st.integers(0, 12))
def test_selection_takes_fronts_in_order(found: list[dict[str, float]], count: int) -> None:
    chosen = select(OBJECTIVES, found, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(found))
    rank = ranks(OBJECTIVES, found)
    assert [rank[i] for i in chosen] == sorted(rank[i] for i in chosen)
    if chosen:
        assert found[chosen[0]]["val_accuracy"] == max(m["val_accuracy"] for m in found)


def test_weighted_product_is_mnasnets() -> None:
    product = WeightedProduct(OBJECTIVES, {"latency_ms": 80.0}, {})
    assert product.score({"val_accuracy": 0.75, "latency_ms": 80.0}) == pytest.approx(0.75)
    # The paper's rule of thumb: twice the latency for 5% more accuracy scores about alike.
    twice = product.score({"val_accuracy": 0.75 * 1.05, "latency_ms": 160.0})
    assert twice == pytest.approx(0.75, rel=0.001)
    found = [{"val_accuracy": 0.7, "latency_ms": 80.0}, {"val_accuracy": 0.9, "latency_ms": 80.0}]
    assert select(OBJECTIVES, found, 1, product) == [1]


@pytest.mark.parametrize(
    ("names", "leading"),
    [
        (["latency_ms", "val_loss", "val_f1", "val_accuracy"], "val_f1"),
        (["val_images", "val_loss", "latency_ms"], "val_loss"),
        (["val_images", "latency_ms"], None),
    ],
)
def test_the_loss_leads_if_there_is_no_other_metric(names: list[str], leading: str | None) -> None:
    assert leading_metric(names) == leading


def test_limits() -> None:
    limit = Limit("latency_ms", 2.0, True, "--max-latency-ms")
    assert limit.broken({"latency_ms": 2.0}) is None
    assert limit.broken({}) is None
    assert limit.broken({"latency_ms": 2.5}) == "latency_ms 2.5 exceeds --max-latency-ms 2"
    least = Limit("val_accuracy", 0.9, False, "--min-accuracy")
    assert least.broken({"val_accuracy": 0.85}) == "val_accuracy 0.85 is below --min-accuracy 0.9"
    assert least.excess({"val_accuracy": 0.85}) == pytest.approx(0.05 / 0.9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("energy", "needs a direction"),
        ("energy:up", "needs a direction"),
        ("", "needs a direction"),
        ("test_accuracy", "the test split is never searched on"),
        ("test_accuracy:max", "the test split is never searched on"),
    ],
)
def test_invalid_objectives_are_errors(text: str, said: str) -> None:
    with pytest.raises(SlimsearchError, match=said):
        Objective.parse(text)


def test_objectives() -> None:
    assert Objective.parse("macs") == Objective("macs", "minimize")
    assert Objective.parse("f1:max") == Objective("f1", "maximize")
    assert np.isclose(Objective.parse("f1:max").loss({"f1": 0.5}), -0.5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_hypervolumes_are_those_of_every_prefix(count: int) -> None:
    objectives = (Objective("a", "maximize"), Objective("b", "minimize"), Objective("c", "minimize"))[:count]
    rng = np.random.default_rng(count)
    metrics = [dict(zip("abc", rng.integers(0, 6, 3).astype(float), strict=True)) for _ in range(40)]
    expected = [hypervolume(objectives, metrics[: i + 1], metrics) for i in range(len(metrics))]
    assert hypervolumes(objectives, metrics) == pytest.approx(expected)
    assert hypervolumes(objectives, []) == []


@given(st.floats(0.01, 100), st.sampled_from([1e-3, 1.0, 1e6]), st.sampled_from([1e-3, 1.0, 1e6]))
def test_limits_of_different_units_count_alike(factor: float, one: float, other: float) -> None:
    """Twice the latency is as bad as twice the parameters; half the accuracy as bad as half more of either."""
    found = [Limit("m", bound, True, "--max").excess({"m": factor * bound}) for bound in (one, other)]
    assert found == pytest.approx([factor - 1] * 2)
    assert Limit("val_accuracy", 0.8, False, "--min-accuracy").excess({"val_accuracy": 0.4}) == pytest.approx(0.5)
    assert Limit("val_accuracy", 0.0, False, "--min-accuracy").excess({"val_accuracy": 0.0}) == 0
