"""Joint space of architectures and recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces._graph import Graph
from slimsearch.search_spaces._recipe_space import RecipeSpace
from slimsearch.search_spaces._space import Ancestor, Candidate, Choice, Point, Space

PlainRecipe = Mapping[str, Mapping[str, Any]]
Steps = Callable[[PlainRecipe], Iterable[tuple[PlainRecipe, float]]]
"""Splits a recipe into groups of stages, each with its cost as a multiple of the initial training."""

_OTHER_RECIPES = 100  # random recipes among the relatives of a point
_LISTED_RECIPES = 20_000  # maximum number of recipes that are listed by their trained stages
_DERIVED = 16  # maximum number of recipes without training for one network


class JointSpace(Space):
    """The product of a space of architectures and one of recipes.

    Source: APQ (Wang et al. 2020) searches architecture, pruning and quantization together.

    Args:
        architectures: space of architectures.
        recipes: space of training and compression.
        steps: the groups of stages of a recipe; recipes with the same first groups share networks. None: no networks
            are shared.

    Raises:
        SlimsearchError: both have a choice of the same label.
    """

    def __init__(self, architectures: Space, recipes: RecipeSpace, steps: Steps | None = None) -> None:
        both = {c.label for c in architectures.choices} & {c.label for c in recipes.choices}
        if both:
            raise SlimsearchError(f"the architecture and the recipe both have a choice '{min(both)}'")
        self.architectures, self.recipes, self.steps = architectures, recipes, steps
        self._labels = {c.label for c in recipes.choices}

    @property
    def choices(self) -> tuple[Choice, ...]:
        return (*self.architectures.choices, *self.recipes.choices)

    def canonical(self, point: Point) -> dict[str, Any]:
        architecture, recipe = self._split(point)
        return {**self.architectures.canonical(architecture), **self.recipes.canonical(recipe)}

    @property
    def revision(self) -> int:
        return self.architectures.revision

    def confirmed(self, point: Point) -> dict[str, Any]:
        architecture, recipe = self._split(point)
        return {**self.architectures.confirmed(architecture), **recipe}

    def candidate(self, point: Point) -> Candidate:
        architecture, recipe = self._split(point)
        found = self.recipes.candidate(recipe)
        return Candidate(self.architectures.candidate(architecture).architecture, found.recipe, found.training)

    def point(self, candidate: Candidate) -> dict[str, Any]:
        return {**self.architectures.point(candidate), **self.recipes.point(candidate)}

    def architecture(self, point: Mapping[str, Any]) -> dict[str, Any]:
        return self._split(point)[0]

    def graph(self, point: Point) -> Graph | None:
        return self.architectures.graph(self._split(point)[0])

    def lineage(self, point: Point) -> list[Ancestor]:
        if self.steps is None:
            return []
        passed = self._trained(self.candidate(point), self.steps)
        return [Ancestor(one.key, trainings, self._point(one)) for one, trainings in passed]

    def reference(self) -> Point | None:
        """The reference of the architectures, uncompressed."""
        architecture = self.architectures.reference()
        return None if architecture is None else self._point(Candidate(architecture))

    def related_points(self, point: Point, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """Random recipes for the same network; then each network of its lineage, and their neighbors."""
        if self.steps is None:
            return
        candidate = self.candidate(point)
        architecture = self.architectures.point(candidate)
        for _ in range(_OTHER_RECIPES):
            recipe = self.recipes.sample(rng)
            if self.recipes.candidate(recipe).training == candidate.training:
                yield {**architecture, **recipe}
        for network, _ in self._networks(candidate, self.steps):
            own = self._point(network)
            if own is None:
                continue
            yield own
            for recipe in self.recipes.neighbours(self._split(own)[1], rng):
                if self.recipes.candidate(recipe).training == network.training:
                    yield {**architecture, **recipe}

    def derived_points(self, point: Point) -> Iterator[dict[str, Any]]:
        """Up to 16 recipes without training for each network in the lineage of `point`.

        None if there are more than 20,000 recipes.
        """
        if self.steps is None:
            return
        candidate = self.candidate(point)
        architecture = self.architectures.point(candidate)
        for network, _ in self._trained(candidate, self.steps):
            recipes = self._recipes_by_network.get(_network_key(network), ())
            for recipe in recipes[:: -(-len(recipes) // _DERIVED) or 1]:
                yield {**architecture, **recipe}

    def untrained_stages(self, point: Point) -> PlainRecipe:
        """The stages of the recipe after the last one with training, such as its number format."""
        found: dict[str, Mapping[str, Any]] = {}
        for stages, trainings in () if self.steps is None else self.steps(self.candidate(point).recipe):
            found = {} if trainings > 0 else {**found, **stages}
        return found

    @cached_property
    def _recipes_by_network(self) -> dict[str, list[dict[str, Any]]]:
        """The points of recipes by the last network that is trained for them."""
        found: dict[str, list[dict[str, Any]]] = {}
        if self.steps is None or self.recipes.size > _LISTED_RECIPES:
            return found
        for recipe in self.recipes.grid():
            *_, (trained, _) = self._trained(self.recipes.candidate(recipe), self.steps)
            found.setdefault(_network_key(trained), []).append(recipe)
        return found

    def _point(self, candidate: Candidate) -> dict[str, Any] | None:
        """The point of `candidate`, or None if it lacks a stage that is not optional."""
        try:
            return self.point(candidate)
        except SlimsearchError:
            return None

    def _trained(self, candidate: Candidate, steps: Steps) -> Iterator[tuple[Candidate, float]]:
        """Those of `_networks` that are trained: the first one, and each with a cost."""
        first, *others = self._networks(candidate, steps)
        return iter([first, *(one for one in others if one[1] > 0)])

    def _networks(self, candidate: Candidate, steps: Steps) -> Iterator[tuple[Candidate, float]]:
        """The networks from the trained one to `candidate`, each with the cost from the previous one in trainings.

        A network that the run was given costs nothing.
        """
        done: dict[str, Mapping[str, Any]] = {}
        given = self._given is not None and self.architectures.point(candidate) == self._given
        yield replace(candidate, recipe={}), 0.0 if given else 1.0
        for group, trainings in steps(candidate.recipe):
            done = {**done, **group}
            yield replace(candidate, recipe=done), trainings

    @cached_property
    def _given(self) -> Point | None:
        """The architecture of a network that is trained already; None: all are trained."""
        return self.architectures.reference()

    # Moves are delegated to the two spaces: one may be a `Subset` of what its choices span.

    @property
    def size(self) -> int:
        return self.architectures.size * self.recipes.size

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        return {**self.architectures.sample(rng), **self.recipes.sample(rng)}

    def crossover(self, one: Point, other: Point, rng: np.random.Generator) -> dict[str, Any]:
        (architecture, recipe), (others_architecture, others_recipe) = self._split(one), self._split(other)
        return {
            **self.architectures.crossover(architecture, others_architecture, rng),
            **self.recipes.crossover(recipe, others_recipe, rng),
        }

    def shuffled_neighbours(self, point: Point, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        architecture, recipe = self._split(self.canonical(point))
        sides = [
            (space.shuffled_neighbours(own, rng), other, _moves(space, own))
            for space, own, other in ((self.architectures, architecture, recipe), (self.recipes, recipe, architecture))
        ]
        while sides:
            # All moves of both spaces are equally likely to be next.
            weights = np.array([moves for *_, moves in sides], dtype=float)
            side = int(rng.choice(len(sides), p=weights / weights.sum()))
            neighbors, other, _ = sides[side]
            found = next(neighbors, None)
            if found is None:
                del sides[side]
            else:
                yield self.canonical({**found, **other})

    def grid(self) -> Iterator[dict[str, Any]]:
        for architecture in self.architectures.grid():
            for recipe in self.recipes.grid():
                yield {**architecture, **recipe}

    def _split(self, point: Point) -> tuple[dict[str, Any], dict[str, Any]]:
        architecture = {label: value for label, value in point.items() if label not in self._labels}
        return architecture, {label: value for label, value in point.items() if label in self._labels}


def _network_key(network: Candidate) -> str:
    """Equal for networks with equal training and stages, whatever their architecture."""
    return replace(network, architecture={}).key


def _moves(space: Space, active: Point) -> int:
    """Number of other values of the active choices; at least 1."""
    return max(1, sum(len(choice.values) - 1 for choice in space.choices if choice.label in active))
