"""What is proposed where limits rule out most of a space before anything is trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from slimsearch.evaluators import Objective
from slimsearch.loop.proposals import Proposals
from slimsearch.search_spaces import ChoiceSpace, Point
from slimsearch.strategies.samplers import History, Observation, load_sampler

SPACE = ChoiceSpace({f"width{i}": [1, 2, 4, 8, 16, 32] for i in range(8)})
OBJECTIVES = (Objective("accuracy", "maximize"), Objective("size", "minimize"))


def excess(point: Point) -> float:
    """Of the sum of all widths over 32, which three points in a hundred keep."""
    return max(0.0, sum(point.values()) / 32 - 1)


def proposed(sampler: str, count: int, seed: int, violation: Callable[[Point], float]) -> tuple[list[Point], History]:
    proposals, history, points = Proposals(SPACE, load_sampler(sampler), OBJECTIVES, seed), History(), []
    for number in range(count):
        candidate = proposals.next(history, number)
        assert candidate is not None
        point = SPACE.point(candidate)
        assert not history.tried(point)
        size = float(sum(point.values()))
        history.add(Observation(point, None if violation(point) else (-size, size), violation(point)))
        points.append(point)
    return points, history


@pytest.mark.parametrize("sampler", ["random", "graph_gp", "tpe"])
def test_narrow_limits_are_found_and_kept(sampler: str) -> None:
    by_chance = np.mean([excess(SPACE.sample(np.random.default_rng(seed))) == 0 for seed in range(2000)])
    assert by_chance < 0.04
    points, _ = proposed(sampler, 150, 0, excess)
    kept = [excess(point) == 0 for point in points]
    assert np.mean(kept[75:]) > 0.2
    assert len({tuple(point.values()) for point, keeps in zip(points, kept, strict=True) if keeps}) == sum(kept)


def test_the_default_sampler_learns_what_breaks_limits() -> None:
    """Where what is larger is better: it looks near the limit of 32 all the same; random points have a sum of 84."""
    sampler, history, rng = load_sampler("graph_gp"), History(), np.random.default_rng(0)
    for number in range(60):
        widths = [1, 2, 4] if number % 2 else [1, 2, 4, 8, 16, 32]
        point = {choice.label: int(rng.choice(widths)) for choice in SPACE.choices}
        history.add(Observation(point, None if excess(point) else (-float(sum(point.values())),), excess(point)))
    sums = []
    for _ in range(20):
        point = dict(sampler.propose(SPACE, OBJECTIVES[:1], history, rng))
        sums.append(sum(point.values()))
        history.add(Observation(point, None if excess(point) else (-float(sum(point.values())),), excess(point)))
    assert np.median(sums) < 48


def test_proposals_follow_from_the_history_and_the_seed() -> None:
    assert proposed("random", 40, 0, excess)[0] == proposed("random", 40, 0, excess)[0]
    assert proposed("random", 40, 0, excess)[0] != proposed("random", 40, 1, excess)[0]


def test_without_limits_all_is_the_samplers() -> None:
    points, _ = proposed("random", 20, 0, lambda point: 0.0)
    sampler, history = load_sampler("random"), History()
    for number, point in enumerate(points):
        wanted = sampler.propose(SPACE, OBJECTIVES, history, np.random.default_rng([0, number]))
        assert wanted == point
        history.add(Observation(wanted, (0.0, 0.0)))
