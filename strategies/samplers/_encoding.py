"""Points as numbers that a surrogate model can learn from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from search_spaces import Candidate, Point, Space
from search_spaces import Choice as _Choice

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Positions = np.ndarray[Any, np.dtype[np.int64]]


class Encoder:
    """Feature vectors in blocks, each of which a kernel weighs on its own.

    Blocks: one-hot active choices; numeric choices by their place among their values, 0 to 1; and, where the space
    describes a cell's graph, one-hot choices of live edges in place of all, counts of live operations, and square roots
    of how often each sequence of operations leads through the cell (compare the path encoding of White et al. 2021,
    BANANAS). What cannot change the network, an inactive choice or a dead edge, changes no feature.

    Args:
        space: whose points are encoded; vectors are kept, by the point's key.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._choices = {choice.label: choice for choice in space.choices}
        offsets = np.cumsum([0, *(len(choice.values) for choice in space.choices)])
        self._offsets = dict(zip(self._choices, offsets[:-1].tolist(), strict=True))
        self._width = int(offsets[-1])
        self._numeric = {label: _places(choice) for label, choice in self._choices.items() if _is_numeric(choice)}
        self._paths: dict[tuple[str, ...], int] = {}
        self._operations: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        self._flat = np.zeros((64, self._width))
        self._second = np.zeros((64, max(1, len(self._numeric))))
        self._third = np.zeros((64, 1))
        self._points: list[dict[str, Any]] = []
        self._known: list[Mapping[str, float]] = []

    def blocks(self, positions: Positions) -> list[Matrix]:
        """The vectors at `positions`, (N, width) for each block."""
        return [block[positions] for block in (self._flat, self._second, self._third)]

    def known(self, position: int) -> Mapping[str, float]:
        """The metrics that the space knows of the point kept there."""
        return self._known[position]

    def point(self, position: int) -> dict[str, Any]:
        """The point kept there."""
        return self._points[position]

    def __len__(self) -> int:
        return len(self._points)

    def position(self, point: Point) -> int:
        """Where the vector of a canonical point is kept."""
        key = Candidate(point).key
        found = self._positions.get(key)
        if found is not None:
            return found
        row = len(self._points)
        if row == len(self._flat):
            self._flat, self._second, self._third = (
                np.vstack([block, np.zeros_like(block)]) for block in (self._flat, self._second, self._third)
            )
        graph = self._space.graph(point)
        if graph is None:
            for label, value in point.items():
                self._flat[row, self._offsets[label] + self._choices[label].index(value)] = 1.0
            for column, (label, places) in enumerate(self._numeric.items()):
                if label in point:
                    self._second[row, column] = places[self._choices[label].index(point[label])]
        else:
            live = graph.live()
            for edge in live:
                self._flat[row, self._offsets[edge.label] + self._choices[edge.label].index(point[edge.label])] = 1.0
            self._second = _counted(self._second, row, self._operations, ((e.operation, 1) for e in live), root=False)
            self._third = _counted(self._third, row, self._paths, graph.paths().items(), root=True)
        self._points.append(dict(point))
        self._known.append(self._space.known(point))
        self._positions[key] = row
        return row


def _counted(
    block: Matrix, row: int, vocabulary: dict[Any, int], counts: Iterable[tuple[Any, int]], *, root: bool
) -> Matrix:
    for word, count in counts:
        column = vocabulary.setdefault(word, len(vocabulary))
        if column >= block.shape[1]:
            block = np.hstack([block, np.zeros_like(block)])
        block[row, column] += count
    if root:
        block[row] = np.sqrt(block[row])
    return block


def _is_numeric(choice: _Choice) -> bool:
    return len(choice.values) > 2 and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in choice.values
    )


def _places(choice: _Choice) -> list[float]:
    order = sorted(choice.values)
    return [order.index(value) / (len(order) - 1) for value in choice.values]
