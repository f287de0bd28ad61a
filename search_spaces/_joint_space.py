"""Architecture and recipe as one space: what is searched where both are searched together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

    def _parts(self, point: Point) -> tuple[dict[str, Any], dict[str, Any]]:
        architecture = {label: value for label, value in point.items() if label not in self._labels}
        return architecture, {label: value for label, value in point.items() if label in self._labels}
