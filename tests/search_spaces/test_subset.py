"""Subsets of a space."""

from __future__ import annotations

import numpy as np
import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces import Candidate, ChoiceSpace, Subset

SPACE = ChoiceSpace({"a": [1, 2, 3], "b": ["x", "y"]}, known=lambda point: {"params": float(point["a"])})
POINTS = [{"a": 3, "b": "x"}, {"b": "y", "a": 1}, {"a": 3, "b": "x"}, {"a": 2, "b": "y"}]


def test_it_has_its_points_and_no_others(rng: np.random.Generator) -> None:
    subset = Subset(SPACE, POINTS)
    different = [{"a": 3, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "y"}]
    assert list(subset.grid()) == different
    assert subset.size == 3
    assert subset.choices == SPACE.choices
    assert [p for p in SPACE.grid() if subset.contains(p)] == sorted(different, key=lambda p: (p["a"], p["b"]))
    drawn = [subset.sample(rng) for _ in range(50)]
    assert {Candidate(p).key for p in drawn} == {Candidate(p).key for p in different}
    for point in different:
        assert subset.mutate(point, rng) in [p for p in different if p != point]
        assert subset.contains(subset.crossover(point, different[0], rng))
        assert subset.candidate(point) == SPACE.candidate(point)
        assert subset.known(point) == SPACE.known(point)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "list of architectures is empty"),
        ([{"a": 3, "b": "x"}, {"a": 4, "b": "x"}], "architecture 2 of 2: 'a' cannot be 4"),
        ([{"a": 3}], "architecture 1 of 1: label 'b' is missing"),
    ],
)
def test_points_outside_the_space_are_errors(points: list[dict[str, object]], message: str) -> None:
    with pytest.raises(SlimsearchError, match=message):
        Subset(SPACE, points)
