"""A network's cell as a graph: operations on edges between tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from slimsearch.errors import SlimsearchError

DEAD = frozenset({"none", "zero"})
"""Operations that give zeros, whatever goes in."""
IDENTITY = frozenset({"skip_connect", "skip", "identity"})
"""Operations that hand on what goes in."""


@dataclass(frozen=True)
class Edge:
    """An operation from one tensor to a later one.

    Attributes:
        source, target: tensors, numbered such that ``source < target``.
        operation: its name.
        label: of the choice that decided about the operation.

    Raises:
        SlimsearchError: ``0 <= source < target`` does not hold.
    """

    source: int
    target: int
    operation: str
    label: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.source < self.target:
            raise SlimsearchError(f"an edge from {self.source} to {self.target}: 0 <= source < target is needed")


@dataclass(frozen=True)
class Graph:
    """A cell: tensor 0 goes in, the last one comes out, each tensor is the sum of what its edges give.

    What no path from the inputs to the output passes is dead: it changes nothing, however it is chosen.

    Attributes:
        edges: in any order.
        inputs: how many tensors go in, numbered from 0.
        output: number of the tensor that comes out.
        wiring: labels of choices that decide which tensors are connected; those of the operations are the edges'.
    """

    edges: tuple[Edge, ...]
    output: int
    inputs: int = 1
    wiring: frozenset[str] = frozenset()

    @property
    def labels(self) -> frozenset[str]:
        """Of all choices that the graph stands for."""
        return self.wiring | {edge.label for edge in self.edges if edge.label is not None}

    def live(self) -> tuple[Edge, ...]:
        """Edges on a path from an input to the output."""
        present = [e for e in self.edges if e.operation not in DEAD]
        from_inputs = _reached(range(self.inputs), ((e.source, e.target) for e in sorted(present, key=_order)))
        to_output = _reached((self.output,), ((e.target, e.source) for e in sorted(present, key=_order, reverse=True)))
        return tuple(e for e in present if e.source in from_inputs and e.target in to_output)

    def paths(self) -> Counter[tuple[str, ...]]:
        """How often each sequence of operations leads from an input to the output, identities left out.

        Cells that compute the same have equal counts, however their tensors are numbered (compare the path encoding of
        White et al. 2021, which says only whether there is such a path).
        """
        found: dict[int, Counter[tuple[str, ...]]] = {tensor: Counter({(): 1}) for tensor in range(self.inputs)}
        for edge in sorted(self.live(), key=_order):
            step = () if edge.operation in IDENTITY else (edge.operation,)
            target = found.setdefault(edge.target, Counter())
            for path, count in found[edge.source].items():
                target[(*path, *step)] += count
        return found.get(self.output, Counter())


def _order(edge: Edge) -> tuple[int, int]:
    return edge.target, edge.source


def _reached(start: Iterable[int], steps: Iterable[tuple[int, int]]) -> set[int]:
    found = set(start)
    for source, target in steps:
        if source in found:
            found.add(target)
    return found
