"""A space of nothing but choices."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces import Candidate, ChoiceSpace, Edge, Graph

CHOICES = {"b": [1, 1.0, True, None], "a": ["x", [1, 2]], "c": (3,)}


def test_the_order_of_labels_is_irrelevant() -> None:
    one, other = ChoiceSpace(CHOICES), ChoiceSpace(dict(reversed(CHOICES.items())))
    assert one.choices == other.choices
    assert [c.label for c in one.choices] == ["a", "b", "c"]
    assert list(one.grid()) == list(other.grid())
    assert one.size == len({Candidate(p).key for p in one.grid()}) == 8
    assert list(one.canonical({"c": 3, "b": 1, "a": "x"})) == ["a", "b", "c"]


def test_points_survive_json(rng: np.random.Generator) -> None:
    space = ChoiceSpace({"a": [(1, 2), {"k": [1]}], 5: [0.1, 1e300]})
    for _ in range(10):
        point = space.sample(rng)
        again = json.loads(json.dumps(point))
        assert Candidate(space.canonical(again)) == Candidate(point)
        assert np.array_equal(space.encode(again), space.encode(point))


def test_moves_stay_inside(rng: np.random.Generator) -> None:
    space = ChoiceSpace(CHOICES)
    for point in space.grid():
        assert len(list(space.neighbours(point))) == 4
        assert space.contains(space.mutate(point, rng))
        assert Candidate(space.mutate(point, rng)) != Candidate(point)
        assert space.canonical(space.complete({"a": point["a"]})) == {"a": point["a"], "b": 1, "c": 3}


def test_known_metrics_come_from_the_function() -> None:
    space = ChoiceSpace(
        {"op": ["conv", "none"]},
        known=lambda point: {"params": 9.0 if point["op"] == "conv" else 0.0},
        graph=lambda point: Graph((Edge(0, 1, point["op"], "op"),), 1),
    )
    assert space.known({"op": "conv"}) == {"params": 9.0}
    assert space.graph({"op": "none"}) == Graph((Edge(0, 1, "none", "op"),), 1)
    plain = pickle.loads(pickle.dumps(ChoiceSpace(CHOICES)))
    assert plain.known({}) == {}
    assert plain.graph({}) is None
    assert plain.choices == ChoiceSpace(CHOICES).choices


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "has no choices"),
        ({"a": []}, "choice 'a' has no values"),
        ({"a": [1, 2, 1]}, "choice 'a' has a value twice"),
        ({"a": [(1, 2), [1, 2]]}, "choice 'a' has a value twice"),
        ({"a": [object()]}, "plain JSON"),
        ({"a": "relu"}, "choice 'a' needs a list of values, not 'relu'"),
        ({"a": 3}, "choice 'a' needs a list of values, not 3"),
        ({1: [1, 2], "1": [1, 2]}, "same label"),
    ],
)
def test_invalid_choices_are_errors(choices: Any, message: str) -> None:
    with pytest.raises(SlimsearchError, match=message):
        ChoiceSpace(choices)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"a": "x", "b": 1}, "label 'c' is missing"),
        ({"a": "x", "b": 1, "c": 3, "d": 4}, "unknown label 'd'; the space has a, b, c"),
        ({"a": "x", "b": 2, "c": 3}, "'b' cannot be 2; allowed: 1, 1.0, True, None"),
        ({"a": object(), "b": 1, "c": 3}, "'a' cannot be"),
    ],
)
def test_points_outside_are_errors(point: dict[str, Any], message: str) -> None:
    assert not ChoiceSpace(CHOICES).contains(point)
    with pytest.raises(SlimsearchError, match=message):
        ChoiceSpace(CHOICES).canonical(point)
