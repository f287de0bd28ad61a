"""Cells of networks as graphs: tensors are vertices, operations are edges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from slimsearch.errors import SlimsearchError

DEAD = frozenset({"none", "zero"})
"""Operations that return zeros."""
IDENTITY = frozenset({"skip_connect", "skip", "identity"})
"""Operations that return their input."""


@dataclass(frozen=True)
class Edge:
    """An operation from one tensor to a later one.

    Attributes:
        source, target: indices of tensors, ``source < target``.
        operation: name of the operation.
        label: of the choice that selects the operation.

    Raises:
        SlimsearchError: ``0 <= source < target`` does not hold.
    """

    source: int
    target: int
    operation: str
    label: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.source < self.target:
            raise SlimsearchError(f"edge from {self.source} to {self.target}: needs 0 <= source < target")


@dataclass(frozen=True)
class Graph:
    """A cell. Each tensor except the inputs is the sum of the results of its incoming edges.

    Edges that are on no path from an input to the output are dead: they do not affect the result.

    Attributes:
        edges: in any order.
        inputs: number of input tensors, which have the first indices.
        output: index of the output tensor.
        wiring: labels of the choices that connect tensors; those of operations are in the edges.
    """

    edges: tuple[Edge, ...]
    output: int
    inputs: int = 1
    wiring: frozenset[str] = frozenset()

    @property
    def labels(self) -> frozenset[str]:
        """Labels of all choices that the graph represents."""
        return self.wiring | {edge.label for edge in self.edges if edge.label is not None}

    def live(self) -> tuple[Edge, ...]:
        """Edges on a path from an input to the output."""
        present = [e for e in self.edges if e.operation not in DEAD]
        from_inputs = _reached(range(self.inputs), ((e.source, e.target) for e in sorted(present, key=_order)))
        to_output = _reached((self.output,), ((e.target, e.source) for e in sorted(present, key=_order, reverse=True)))
        return tuple(e for e in present if e.source in from_inputs and e.target in to_output)

    def paths(self) -> Counter[tuple[str, ...]]:
        """Number of paths from an input to the output by their sequence of operations, without identities.

        Cells that compute the same have equal counts, however their tensors are numbered. Compare the path encoding of
        White et al. 2021, which has the presence of paths instead of their number.
        """
        paths: dict[int, Counter[tuple[str, ...]]] = {tensor: Counter({(): 1}) for tensor in range(self.inputs)}
        for edge in sorted(self.live(), key=_order):
            step = () if edge.operation in IDENTITY else (edge.operation,)
            target = paths.setdefault(edge.target, Counter())
            for path, count in paths[edge.source].items():
                target[(*path, *step)] += count
        return paths.get(self.output, Counter())


def _order(edge: Edge) -> tuple[int, int]:
    return edge.target, edge.source


def _reached(start: Iterable[int], steps: Iterable[tuple[int, int]]) -> set[int]:
    reached = set(start)
    for source, target in steps:
        if source in reached:
            reached.add(target)
    return reached
