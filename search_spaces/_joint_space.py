"""Architecture and recipe as one space: what is searched where both are searched together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from search_spaces._candidate import Candidate
from search_spaces._graph import Graph
from search_spaces._recipe_space import RecipeSpace
from search_spaces._space import Choice, Point, Space
from slimsearch_errors import SlimsearchError


class JointSpace(Space):
    """The product of a space of architectures and one of recipes.

    Source: APQ (Wang et al. 2020) searches architecture, pruning and quantization together.

    Args:
        architectures: what is built.
        recipes: how it is trained and compressed.

    Raises:
        SlimsearchError: both have a choice of the same label.
    """

    def __init__(self, architectures: Space, recipes: RecipeSpace) -> None:
        both = {c.label for c in architectures.choices} & {c.label for c in recipes.choices}
        if both:
            raise SlimsearchError(f"the architecture and the recipe both have a choice '{min(both)}'")
        self.architectures, self.recipes = architectures, recipes
        self._choices = (*architectures.choices, *recipes.choices)
        self._labels = {c.label for c in recipes.choices}

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self._choices

    def canonical(self, point: Point) -> dict[str, Any]:
        architecture, recipe = self._parts(point)
        return {**self.architectures.canonical(architecture), **self.recipes.canonical(recipe)}

    def candidate(self, point: Point) -> Candidate:
        architecture, recipe = self._parts(point)
        made = self.recipes.candidate(recipe)
        return Candidate(self.architectures.canonical(architecture), made.recipe, made.training)

    def point(self, candidate: Candidate) -> dict[str, Any]:
        return {**self.architectures.point(candidate), **self.recipes.point(candidate)}

    def architecture(self, point: Mapping[str, Any]) -> dict[str, Any]:
        return self._parts(point)[0]

    def graph(self, point: Point) -> Graph | None:
        return self.architectures.graph(self._parts(point)[0])

    # The architectures need not be all that their choices span: how to move among them they know themselves.

    @property
    def size(self) -> int:
        return self.architectures.size * self.recipes.size

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        return {**self.architectures.sample(rng), **self.recipes.sample(rng)}

    def crossover(self, one: Point, other: Point, rng: np.random.Generator) -> dict[str, Any]:
        (architecture, recipe), (others_architecture, others_recipe) = self._parts(one), self._parts(other)
        return {
            **self.architectures.crossover(architecture, others_architecture, rng),
            **self.recipes.crossover(recipe, others_recipe, rng),
        }

    def shuffled_neighbours(self, point: Point, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        architecture, recipe = self._parts(self.canonical(point))
        sides = [
            (space.shuffled_neighbours(own, rng), other, _moves(space, own))
            for space, own, other in ((self.architectures, architecture, recipe), (self.recipes, recipe, architecture))
        ]
        while sides:
            # Every move is as likely as every other one to come next, whichever side it is on.
            weights = np.array([moves for *_, moves in sides], dtype=float)
            place = int(rng.choice(len(sides), p=weights / weights.sum()))
            neighbours, other, _ = sides[place]
            found = next(neighbours, None)
            if found is None:
                del sides[place]
            else:
                yield self.canonical({**found, **other})

    def grid(self) -> Iterator[dict[str, Any]]:
        for architecture in self.architectures.grid():
            for recipe in self.recipes.grid():
                yield {**architecture, **recipe}

    def _parts(self, point: Point) -> tuple[dict[str, Any], dict[str, Any]]:
        architecture = {label: value for label, value in point.items() if label not in self._labels}
        return architecture, {label: value for label, value in point.items() if label in self._labels}


def _moves(space: Space, active: Point) -> int:
    """How many values active choices could have besides those that they have; at least one."""
    return max(1, sum(len(choice.values) - 1 for choice in space.choices if choice.label in active))
