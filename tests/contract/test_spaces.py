"""Laws of every space, shipped or written for the tests."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import torch

from slimsearch.errors import SlimsearchError
from slimsearch.names import built_in_names
from slimsearch.search_spaces import Candidate, ModelSpace
from tests.conftest import SPACES

SHAPES = dict.fromkeys(("Tiny", "Nested", "WithCell", "Constrained"), (1, 8, 8))
NAMES = [*built_in_names("slimsearch.search_spaces"), *(f"{SPACES}:{name}" for name in SHAPES)]


@pytest.fixture(scope="module", params=NAMES, ids=lambda name: name.rpartition(":")[2])
def space(request: pytest.FixtureRequest) -> ModelSpace:
    shape = SHAPES.get(request.param.rpartition(":")[2], (1, 28, 28))
    return ModelSpace.load(request.param, shape, 10)


def test_samples_are_inside_and_canonical(space: ModelSpace, rng: np.random.Generator) -> None:
    for _ in range(20):
        point = space.sample(rng)
        assert space.contains(point)
        assert space.canonical(point) == point
        assert space.canonical(space.complete(point)) == point


def test_every_choice_takes_every_value(space: ModelSpace, rng: np.random.Generator) -> None:
    seen = {choice.label: set() for choice in space.choices}
    for _ in range(300):
        for label, value in space.sample(rng).items():
            seen[label].add(str(value))
    assert all(len(seen[choice.label]) == len(choice.values) for choice in space.choices)


def test_neighbours_differ_and_are_inside(space: ModelSpace, rng: np.random.Generator) -> None:
    point = space.sample(rng)
    around = list(space.neighbours(point))
    assert around
    for neighbour in around:
        assert neighbour != point
        assert space.canonical(neighbour) == neighbour


def test_mutation_and_crossover_stay_inside(space: ModelSpace, rng: np.random.Generator) -> None:
    for _ in range(20):
        one, other = space.sample(rng), space.sample(rng)
        assert space.mutate(one, rng) != one
        assert space.contains(space.mutate(one, rng))
        assert space.contains(space.crossover(one, other, rng))


def test_encoding_tells_points_apart(space: ModelSpace, rng: np.random.Generator) -> None:
    points = [space.sample(rng) for _ in range(30)]
    for one in points:
        for other in points:
            assert (one == other) == bool(np.array_equal(space.encode(one), space.encode(other)))


def test_builds_what_trains(space: ModelSpace, rng: np.random.Generator) -> None:
    for _ in range(3):
        module = space.build(space.sample(rng), seed=1)
        logits = module(torch.randn(4, *space.input_shape))
        assert logits.shape == (4, 10)
        logits.sum().backward()
        assert all(p.grad is not None for p in module.parameters())


def test_the_seed_decides_about_the_weights(space: ModelSpace, rng: np.random.Generator) -> None:
    point = space.sample(rng)
    first, again, other = (space.build(point, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_travels_to_other_processes(space: ModelSpace, rng: np.random.Generator) -> None:
    copy = pickle.loads(pickle.dumps(space))
    assert copy.choices == space.choices
    point = space.sample(rng)
    one, other = space.build(point, 3).state_dict(), copy.build(point, 3).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_refuses_what_is_not_inside(space: ModelSpace, rng: np.random.Generator) -> None:
    point = space.sample(rng)
    label = next(iter(point))
    for wrong in (
        {**point, label: "nonsense"},
        {**point, "unheard_of": 1},
        {k: v for k, v in point.items() if k != label},
    ):
        assert not space.contains(wrong)
        with pytest.raises(SlimsearchError, match=f"{label}|unheard_of"):
            space.canonical(wrong)


def test_grid_has_every_candidate_once(space: ModelSpace) -> None:
    points = list(itertools.islice(space.grid(), 2000))
    assert len({Candidate(point) for point in points}) == len(points)
