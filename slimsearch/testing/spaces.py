"""Laws of search spaces: points, moves between points, and networks."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import cloudpickle
import numpy as np
import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces import Candidate, ModelSpace, Space
from slimsearch.testing._contract import Contract


class SpaceContract(Contract):
    """Laws of every space.

    Attributes:
        space: a `Space`, or a list of spaces.
    """

    subject = "space"
    space: Any

    @pytest.fixture(scope="class")
    @classmethod
    def searched(cls, space: Any) -> Space:
        """The space under test."""
        assert isinstance(space, Space)
        return space

    @pytest.fixture
    def rng(self) -> np.random.Generator:
        """A generator with a fixed seed."""
        return np.random.default_rng(0)

    def test_samples_are_inside_and_canonical(self, searched: Space, rng: np.random.Generator) -> None:
        for _ in range(20):
            point = searched.sample(rng)
            assert searched.contains(point)
            assert searched.canonical(point) == point
            assert searched.canonical(searched.complete(point)) == point

    def test_every_choice_takes_every_value(self, searched: Space, rng: np.random.Generator) -> None:
        drawn: dict[str, set[str]] = {choice.label: set() for choice in searched.choices}
        for _ in range(300):
            for label, value in searched.sample(rng).items():
                drawn[label].add(str(value))
        assert all(len(drawn[choice.label]) == len(choice.values) for choice in searched.choices)

    def test_neighbours_differ_and_are_inside(self, searched: Space, rng: np.random.Generator) -> None:
        point = searched.sample(rng)
        neighbors = list(searched.neighbours(point))
        assert neighbors
        for neighbor in neighbors:
            assert neighbor != point
            assert searched.canonical(neighbor) == neighbor

    def test_mutation_and_crossover_stay_inside(self, searched: Space, rng: np.random.Generator) -> None:
        for _ in range(20):
            one, other = searched.sample(rng), searched.sample(rng)
            assert searched.mutate(one, rng) != one
            assert searched.contains(searched.mutate(one, rng))
            assert searched.contains(searched.crossover(one, other, rng))

    def test_encoding_tells_points_apart(self, searched: Space, rng: np.random.Generator) -> None:
        points = [searched.sample(rng) for _ in range(30)]
        for one in points:
            for other in points:
                assert (one == other) == bool(np.array_equal(searched.encode(one), searched.encode(other)))

    def test_points_outside_are_refused(self, searched: Space, rng: np.random.Generator) -> None:
        point = searched.sample(rng)
        label = next(iter(point))
        for wrong in (
            {**point, label: "nonsense"},
            {**point, "unheard_of": 1},
            {k: v for k, v in point.items() if k != label},
        ):
            assert not searched.contains(wrong)
            with pytest.raises(SlimsearchError, match=f"{label}|unheard_of"):
                searched.canonical(wrong)

    def test_grid_has_every_candidate_once(self, searched: Space) -> None:
        points = list(itertools.islice(searched.grid(), 2000))
        assert len({Candidate(point) for point in points}) == len(points)

    def test_a_copy_in_another_process_is_equal(self, searched: Space, rng: np.random.Generator) -> None:
        copy = cloudpickle.loads(cloudpickle.dumps(searched))
        assert copy.choices == searched.choices
        point = searched.sample(rng)
        assert copy.canonical(point) == point


class ModelSpaceContract(SpaceContract):
    """Laws of spaces of networks.

    Attributes:
        space: a value of ``--space``, a function, or an NNI `ModelSpace` class; or a list of these.
        input_shape: of one example, such as (C, H, W) of an image.
        num_classes: number of outputs.
        output_shape: of one example; (num_classes,) by default.
    """

    input_shape: ClassVar[tuple[int, ...]] = (1, 28, 28)
    num_classes: ClassVar[int] = 10
    output_shape: ClassVar[tuple[int, ...] | None] = None

    @pytest.fixture(scope="class")
    @classmethod
    def searched(cls, space: Any) -> ModelSpace:
        """The space under test."""
        return ModelSpace.load(space, cls.input_shape, cls.num_classes)

    def test_networks_train(self, searched: ModelSpace, rng: np.random.Generator) -> None:
        import torch

        for _ in range(3):
            module = searched.build(searched.sample(rng), seed=1)
            logits = module(torch.randn(4, *searched.input_shape))
            assert logits.shape == (4, *(self.output_shape or (self.num_classes,)))
            logits.sum().backward()
            assert all(p.grad is not None for p in module.parameters())

    def test_the_seed_decides_about_the_weights(self, searched: ModelSpace, rng: np.random.Generator) -> None:
        import torch

        point = searched.sample(rng)
        first, again, other = (searched.build(point, seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)

    def test_a_copy_builds_the_same_network(self, searched: ModelSpace, rng: np.random.Generator) -> None:
        import torch

        copy = cloudpickle.loads(cloudpickle.dumps(searched))
        point = searched.sample(rng)
        one, other = searched.build(point, 3).state_dict(), copy.build(point, 3).state_dict()
        assert all(torch.equal(one[name], other[name]) for name in one)
