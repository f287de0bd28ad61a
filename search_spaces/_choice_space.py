"""A space that is only its choices: for tables, and for whatever a function of the user's evaluates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces._graph import Graph
from slimsearch.search_spaces._space import Choice, Point, Space


def _nothing(point: Point) -> Mapping[str, float]:
    return {}


def _no_graph(point: Point) -> Graph | None:
    return None


class ChoiceSpace(Space):
    """Every combination of the values of independent choices.

    Args:
        choices: label to the plain JSON values that it can take.
        known: metrics that follow from a point before it is evaluated.
        graph: the cell that a point describes, where it describes one.

    Raises:
        SlimsearchError: there are no choices, two have one label, or one has no list of values, or a value twice.
    """

    def __init__(
        self,
        choices: Mapping[str, Sequence[Any]],
        *,
        known: Callable[[Point], Mapping[str, float]] = _nothing,
        graph: Callable[[Point], Graph | None] = _no_graph,
    ) -> None:
        if not choices:
            raise SlimsearchError("a space without choices: there is nothing to search")
        for label, values in choices.items():
            if isinstance(values, str | bytes) or not isinstance(values, Sequence):
                raise SlimsearchError(f"choice '{label}' needs a list of values, not {values!r}")
        made = [Choice(str(label), tuple(values)) for label, values in choices.items()]
        self._choices = tuple(sorted(made, key=lambda choice: choice.label))
        self._by_label = {choice.label: choice for choice in self._choices}
        if len(self._by_label) < len(self._choices):
            raise SlimsearchError(f"two choices have the same label: {', '.join(c.label for c in self._choices)}")
        self._known, self._graph = known, graph

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self._choices

    def canonical(self, point: Point) -> dict[str, Any]:
        unknown = [label for label in point if label not in self._by_label]
        if unknown:
            raise SlimsearchError(f"unknown label '{unknown[0]}'; the space has {', '.join(self._by_label)}")
        missing = [label for label in self._by_label if label not in point]
        if missing:
            raise SlimsearchError(f"label '{missing[0]}' is missing")
        return {c.label: c.values[c.index(point[c.label])] for c in self._choices}

    def known(self, point: Point) -> Mapping[str, float]:
        return self._known(point)

    def graph(self, point: Point) -> Graph | None:
        return self._graph(point)
