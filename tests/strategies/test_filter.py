"""The filter: the best-scored of several proposals, by the laws of samplers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective
from slimsearch.search_spaces import ChoiceSpace, Point, Space
from slimsearch.strategies.samplers import History, Observation, load_sampler
from slimsearch.strategies.samplers._filter import Filtered

SPACE = ChoiceSpace({"width": list(range(8)), "depth": list(range(8)), "kernel": list(range(8))})
OBJECTIVES = (Objective("val_accuracy", "maximize"),)


class Asked:
    """A score that remembers what it was asked for."""

    def __init__(self) -> None:
        self.points: list[Point] = []

    def __call__(self, point: Point) -> float:
        self.points.append(point)
        return float(64 * point["width"] + 8 * point["depth"] + point["kernel"])


class Always:
    """A sampler with one idea."""

    calls = 0

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        self.calls += 1
        return {"width": 3, "depth": 3, "kernel": 3}


def _propose(
    score: object, name: str = "random", history: History | None = None, seed: int = 0, draws: int = 4
) -> Point:
    sampler = Filtered(load_sampler(name), score, draws)  # type: ignore[arg-type]
    return sampler.propose(SPACE, OBJECTIVES, history or History(), np.random.default_rng(seed))


def _past(count: int) -> History:
    rng = np.random.default_rng(9)
    points = [SPACE.sample(rng) for _ in range(count)]
    return History([Observation(p, (float(p["width"] - p["depth"]),)) for p in points])


@pytest.mark.parametrize(("name", "counts"), [("random", {4}), ("tpe", {2, 3, 4})])
def test_the_best_of_different_untried_points(name: str, counts: set[int]) -> None:
    history = _past(12)  # what TPE proposes for different seeds is often the same
    for seed in range(10):
        asked = Asked()
        point = _propose(asked, name, history, seed)
        assert len({json.dumps(p) for p in asked.points}) == len(asked.points)
        assert len(asked.points) in counts
        assert not any(history.tried(p) for p in asked.points)
        assert point == max(asked.points, key=Asked())


def test_a_function_of_its_arguments() -> None:
    history = _past(30)
    sampler = Filtered(load_sampler("tpe"), Asked())
    rngs = [np.random.default_rng(5) for _ in range(3)]
    again = [sampler.propose(SPACE, OBJECTIVES, history, rng) for rng in rngs[:2]]
    assert again[0] == again[1] == Filtered(load_sampler("tpe"), Asked()).propose(SPACE, OBJECTIVES, history, rngs[2])
    assert len({json.dumps(_propose(Asked(), history=history, seed=seed)) for seed in range(10)}) > 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_what_has_no_score_is_the_worst(bad: float | None) -> None:
    asked = Asked()
    _propose(asked)
    best = max(asked.points, key=Asked())

    def score(point: Point) -> float:
        if point == best:
            if bad is None:
                raise RuntimeError("cannot be built")
            return bad
        return -1000 + Asked()(point)

    second = max((p for p in asked.points if p != best), key=Asked())
    assert _propose(score) == second


def test_without_any_score_the_first_proposal_stands() -> None:
    asked = Asked()
    _propose(asked)
    assert _propose(lambda point: math.nan) == asked.points[0]


def test_one_draw_needs_no_score() -> None:
    asked = Asked()
    assert SPACE.contains(_propose(asked, draws=1))
    assert not asked.points


def test_a_sampler_without_further_ideas() -> None:
    asked, stubborn = Asked(), Always()
    sampler = Filtered(stubborn, asked)
    only = {"depth": 3, "kernel": 3, "width": 3}
    assert sampler.propose(SPACE, OBJECTIVES, History(), np.random.default_rng(0)) == only
    assert sampler.propose(SPACE, OBJECTIVES, History([Observation(only)]), np.random.default_rng(0)) == only
    assert stubborn.calls == 24
    assert not asked.points
    assert _propose(asked, "grid", _past(0)) == next(SPACE.grid())


def test_higher_scores_than_the_sampler_alone() -> None:
    value = Asked()
    alone = [
        value(load_sampler("random").propose(SPACE, OBJECTIVES, History(), np.random.default_rng(s))) for s in range(40)
    ]
    filtered = [value(_propose(Asked(), seed=s)) for s in range(40)]
    assert np.mean(filtered) > np.mean(alone) + 64


def test_no_draws() -> None:
    with pytest.raises(SlimsearchError, match="0 draws"):
        Filtered(load_sampler("random"), Asked(), draws=0)
