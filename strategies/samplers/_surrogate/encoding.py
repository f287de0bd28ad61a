"""Encoding of points as feature vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from slimsearch.search_spaces import Ancestor, Candidate, Point, Space
from slimsearch.search_spaces import Choice as _Choice
from slimsearch.strategies.samplers._surrogate.gaussian_process import Vectors

Positions = np.ndarray[Any, np.dtype[np.int64]]

_COUNTS = ("operations", "paths", "lengths")
"""Blocks of the graph's view, which get a column for each new word."""


class Encoder:
    """Feature vectors of points, in views of one or more blocks; each block has its own length scale in a kernel.

    The plain view: one-hot active choices, and ranks of numeric values, 0 to 1. If the space describes a cell's graph,
    the view of the graph comes first: the same without what the graph describes, one-hot choices of live edges, counts
    of live operations, and square roots of the counts of operation paths through the cell, by their operations (compare
    the path encoding of White et al. 2021, BANANAS) and by their length. An inactive choice changes no feature, and the
    operation of a dead edge none of the graph's view.

    Args:
        space: of the points; vectors are cached by the key of the point.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._choices = {choice.label: choice for choice in space.choices}
        offsets = np.cumsum([0, *(len(choice.values) for choice in space.choices)])
        self._offsets = dict(zip(self._choices, offsets[:-1].tolist(), strict=True))
        width = int(offsets[-1])
        self._numeric = {label: _ranks(choice) for label, choice in self._choices.items() if _is_numeric(choice)}
        self._positions: dict[str, int] = {}
        widths = {"choices": width, "ranks": len(self._numeric), "live": width}
        self._blocks = {name: np.zeros((64, widths.get(name, 0))) for name in {**widths, **dict.fromkeys(_COUNTS)}}
        self._columns: dict[str, dict[Any, int]] = {name: {} for name in _COUNTS}
        self._has_graph = False
        self._points: list[dict[str, Any]] = []
        self._known: list[Mapping[str, float]] = []
        self._lineages: dict[int, list[Ancestor]] = {}

    def views(self, positions: Positions) -> list[Vectors]:
        """The vectors at `positions`, in each view."""
        plain = self._view(("choices", "ranks"), positions)
        return [self._view(("live", "ranks", *_COUNTS), positions), plain] if self._has_graph else [plain]

    def _view(self, names: Iterable[str], positions: Positions) -> Vectors:
        return Vectors([self._blocks[name][positions] for name in names if self._blocks[name].shape[1]])

    def known(self, position: int) -> Mapping[str, float]:
        """The metrics of the point at `position` that the space knows before evaluation."""
        return self._known[position]

    def lineage(self, position: int) -> list[Ancestor]:
        """`Space.lineage` of the point at `position`."""
        if position not in self._lineages:
            self._lineages[position] = self._space.lineage(self._points[position])
        return self._lineages[position]

    def point(self, position: int) -> dict[str, Any]:
        """The point at `position`."""
        return self._points[position]

    def __len__(self) -> int:
        return len(self._points)

    def position(self, point: Point) -> int:
        """The position of a canonical point; encodes the point if it is new."""
        key = Candidate(point).key
        found = self._positions.get(key)
        if found is not None:
            return found
        row = len(self._points)
        if row == len(self._blocks["choices"]):
            self._blocks = {name: np.vstack([block, np.zeros_like(block)]) for name, block in self._blocks.items()}
        graph = self._space.graph(point)
        live = graph.live() if graph is not None else ()
        described = graph.labels if graph is not None else frozenset()
        for label, value in point.items():
            self._blocks["choices"][row, self._offsets[label] + self._choices[label].index(value)] = 1.0
        for column, (label, ranks) in enumerate(self._numeric.items()):
            if label in point and label not in described:
                self._blocks["ranks"][row, column] = ranks[self._choices[label].index(point[label])]
        if graph is not None:
            self._has_graph = True
            for label in {*point} - described | {edge.label for edge in live if edge.label is not None}:
                self._blocks["live"][row, self._offsets[label] + self._choices[label].index(point[label])] = 1.0
            paths = graph.paths()
            lengths: Counter[int] = Counter()
            for path, count in paths.items():
                lengths[len(path)] += count
            self._count("operations", row, Counter(edge.operation for edge in live if edge.label is not None))
            self._count("paths", row, paths, np.sqrt)
            self._count("lengths", row, lengths, np.sqrt)
        self._points.append(dict(point))
        self._known.append(self._space.known(point))
        self._positions[key] = row
        return row

    def _count(self, name: str, row: int, counts: Counter[Any], scale: Callable[[float], float] = float) -> None:
        """Write scaled `counts` to a row of a block, whose columns are the words seen so far."""
        block, columns = self._blocks[name], self._columns[name]
        for word, count in counts.items():
            column = columns.setdefault(word, len(columns))
            if column >= block.shape[1]:
                block = self._blocks[name] = np.hstack([block, np.zeros((len(block), max(8, block.shape[1])))])
            block[row, column] = scale(count)


def _is_numeric(choice: _Choice) -> bool:
    return len(choice.values) > 2 and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in choice.values
    )


def _ranks(choice: _Choice) -> list[float]:
    """The rank of each value, 0 to 1."""
    order = sorted(choice.values)
    return [order.index(value) / (len(order) - 1) for value in choice.values]
