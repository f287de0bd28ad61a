"""Architecture and recipe as one space: what is searched where both are searched together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces._graph import Graph
from slimsearch.search_spaces._recipe_space import RecipeSpace
from slimsearch.search_spaces._space import Ancestor, Candidate, Choice, Point, Space

PlainRecipe = Mapping[str, Mapping[str, Any]]
Steps = Callable[[PlainRecipe], Iterable[tuple[PlainRecipe, float]]]
"""Splits a recipe into the groups of stages that are applied one after the other; 1.0 is the length of a training."""

_OTHER_RECIPES = 100  # random recipes among the relatives of a point


class JointSpace(Space):
    """The product of a space of architectures and one of recipes.

    Source: APQ (Wang et al. 2020) searches architecture, pruning and quantization together.

    Args:
        architectures: what is built.
        recipes: how it is trained and compressed.
        steps: what networks go through on the way, each of which is made once for all recipes that begin alike; None:
            nothing is known of it.

    Raises:
        SlimsearchError: both have a choice of the same label.
    """

    def __init__(self, architectures: Space, recipes: RecipeSpace, steps: Steps | None = None) -> None:
        both = {c.label for c in architectures.choices} & {c.label for c in recipes.choices}
        if both:
            raise SlimsearchError(f"the architecture and the recipe both have a choice '{min(both)}'")
        self.architectures, self.recipes, self.steps = architectures, recipes, steps
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

    def lineage(self, point: Point) -> list[Ancestor]:
        if self.steps is None:
            return []
        passed = self._passed(self.candidate(point), self.steps)
        return [Ancestor(one.key, trainings, self._point(one)) for one, trainings in passed if trainings > 0]

    def related_points(self, point: Point, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """Random recipes for the same network, and the networks on the way, as they are and with one change."""
        if self.steps is None:
            return
        candidate = self.candidate(point)
        for _ in range(_OTHER_RECIPES):
            recipe = self.recipes.sample(rng)
            if self.recipes.candidate(recipe).training == candidate.training:
                yield {**candidate.architecture, **recipe}
        for network, _ in self._passed(candidate, self.steps):
            own = self._point(network)
            if own is None:
                continue
            yield own
            for recipe in self.recipes.neighbours(self._parts(own)[1], rng):
                if self.recipes.candidate(recipe).training == network.training:
                    yield {**network.architecture, **recipe}

    def _point(self, candidate: Candidate) -> dict[str, Any] | None:
        """None where a stage cannot be left out that `candidate` has not."""
        try:
            return self.point(candidate)
        except SlimsearchError:
            return None

    @staticmethod
    def _passed(candidate: Candidate, steps: Steps) -> Iterator[tuple[Candidate, float]]:
        """The networks from the trained one to `candidate`, each with the trainings from the one before to it."""
        done: dict[str, Mapping[str, Any]] = {}
        yield replace(candidate, recipe={}), 1.0
        for group, trainings in steps(candidate.recipe):
            done = {**done, **group}
            yield replace(candidate, recipe=done), trainings

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
