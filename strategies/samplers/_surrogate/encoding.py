"""Encoding of points as feature vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from slimsearch.search_spaces import Ancestor, Candidate, Point, Space
from slimsearch.search_spaces import Choice as _Choice

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Positions = np.ndarray[Any, np.dtype[np.int64]]


class Encoder:
    """Feature vectors of points, in blocks; each block has its own length scale in the kernel.

    Blocks: one-hot active choices; ranks of numeric values, 0 to 1; and, if the space describes a cell's graph, counts
    of live operations and square roots of the counts of operation paths through the cell (compare the path encoding of
    White et al. 2021, BANANAS). An inactive choice, or the operation of a dead edge, changes no feature.

    Args:
        space: of the points; vectors are cached by the key of the point.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._choices = {choice.label: choice for choice in space.choices}
        offsets = np.cumsum([0, *(len(choice.values) for choice in space.choices)])
        self._offsets = dict(zip(self._choices, offsets[:-1].tolist(), strict=True))
        self._width = int(offsets[-1])
        self._numeric = {label: _ranks(choice) for label, choice in self._choices.items() if _is_numeric(choice)}
        self._paths: dict[tuple[str, ...], int] = {}
        self._operations: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        self._flat = np.zeros((64, self._width))
        self._ranks = np.zeros((64, len(self._numeric)))
        self._counts, self._roots = np.zeros((64, 0)), np.zeros((64, 0))
        self._points: list[dict[str, Any]] = []
        self._known: list[Mapping[str, float]] = []
        self._lineages: dict[int, list[Ancestor]] = {}

    def blocks(self, positions: Positions) -> list[Matrix]:
        """The vectors at `positions`, (N, width) for each block."""
        blocks = (self._flat, self._ranks, self._counts, self._roots)
        return [block[positions] for block in blocks if block.shape[1]]

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
        if row == len(self._flat):
            self._flat, self._ranks, self._counts, self._roots = (
                np.vstack([block, np.zeros_like(block)])
                for block in (self._flat, self._ranks, self._counts, self._roots)
            )
        graph = self._space.graph(point)
        live = graph.live() if graph is not None else ()
        described = graph.labels if graph is not None else frozenset()
        for label in {*point} - described | {edge.label for edge in live if edge.label is not None}:
            self._flat[row, self._offsets[label] + self._choices[label].index(point[label])] = 1.0
        for column, (label, ranks) in enumerate(self._numeric.items()):
            if label in point and label not in described:
                self._ranks[row, column] = ranks[self._choices[label].index(point[label])]
        if graph is not None:
            counts = Counter(edge.operation for edge in live if edge.label is not None)
            self._counts = _counted(self._counts, row, self._operations, counts)
            self._roots = _counted(self._roots, row, self._paths, graph.paths())
            np.sqrt(self._roots[row], out=self._roots[row])
        self._points.append(dict(point))
        self._known.append(self._space.known(point))
        self._positions[key] = row
        return row


def _counted(block: Matrix, row: int, vocabulary: dict[Any, int], counts: Counter[Any]) -> Matrix:
    """`block` with `counts` in `row`, wider if there are new words; `vocabulary` maps words to columns."""
    for word, count in counts.items():
        column = vocabulary.setdefault(word, len(vocabulary))
        if column >= block.shape[1]:
            block = np.hstack([block, np.zeros((len(block), max(8, block.shape[1])))])
        block[row, column] = count
    return block


def _is_numeric(choice: _Choice) -> bool:
    return len(choice.values) > 2 and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in choice.values
    )


def _ranks(choice: _Choice) -> list[float]:
    """The rank of each value, 0 to 1."""
    order = sorted(choice.values)
    return [order.index(value) / (len(order) - 1) for value in choice.values]
