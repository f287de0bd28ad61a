"""Graphs of NNI's cells, from the choices of their operations and connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slimsearch.search_spaces._graph import DEAD, IDENTITY, Edge, Graph
from slimsearch.search_spaces._space import Point


@dataclass(frozen=True)
class _Wire:
    """An operation of a cell: its label, its target tensor, and its source tensor or the choice of the source."""

    operation: str
    target: int
    source: int | None = None
    chosen: str | None = None


@dataclass(frozen=True)
class _Cell:
    """Tensors ``0 .. inputs - 1`` are inputs, ``nodes`` more follow; output: the "last", "all" or the "unused" ones."""

    name: str
    inputs: int
    nodes: int
    out: str
    wires: tuple[_Wire, ...]


def graph_of(template: Any) -> Callable[[Point], Graph] | None:
    """A function from a point of an NNI model with open choices to its graph; None if the model has no cells.

    Cells with the same label are one cell. Different cells are drawn in parallel, from the same inputs to one output;
    the names of their operations get the name of the cell.
    """
    cells = _distinct(template)
    if not cells:
        return None
    inputs = max(cell.inputs for cell in cells)
    output = inputs + sum(cell.nodes for cell in cells)
    wiring = frozenset(wire.chosen for cell in cells for wire in cell.wires if wire.chosen is not None)

    def draw(point: Point) -> Graph:
        edges: list[Edge] = []
        first = inputs
        for cell in cells:
            edges += _edges(cell, point, first, output, "" if len(cells) == 1 else f"@{cell.name}")
            first += cell.nodes
        return Graph(tuple(edges), output, inputs, wiring)

    return draw


def _edges(cell: _Cell, point: Point, first: int, output: int, suffix: str) -> list[Edge]:
    def number(tensor: int) -> int:
        return tensor if tensor < cell.inputs else first + tensor - cell.inputs

    edges, used = [], set()
    for wire in cell.wires:
        source = wire.source if wire.chosen is None else int(point[wire.chosen][0])
        assert source is not None
        used.add(source)
        operation = str(point[wire.operation])
        name = operation if operation in DEAD | IDENTITY else operation + suffix
        edges.append(Edge(number(source), number(wire.target), name, wire.operation))
    for tensor in range(cell.inputs, cell.inputs + cell.nodes):
        last = tensor == cell.inputs + cell.nodes - 1
        if cell.out == "all" or (cell.out == "unused" and tensor not in used) or (cell.out == "last" and last):
            edges.append(Edge(number(tensor), output, "skip_connect"))
    return edges


def _distinct(template: Any) -> list[_Cell]:
    from nni.nas.nn.pytorch import Cell

    cells: dict[str, _Cell] = {}
    for module in template.modules():
        if isinstance(module, Cell):
            cell = _chosen_inputs(module)
        elif type(module).__name__ == "NasBench201Cell":  # by name, since importing NNI's hub takes seconds
            cell = _all_pairs(module)
        else:
            continue
        cells.setdefault(cell.name, cell)
    return list(cells.values())


def _chosen_inputs(cell: Any) -> _Cell:
    """`nni.nas.nn.pytorch.Cell`: each operation chooses its input."""
    wires = tuple(
        _Wire(operation.label, cell.num_predecessors + node, chosen=source.label)
        for node, (operations, sources) in enumerate(zip(cell.ops, cell.inputs, strict=True))
        for operation, source in zip(operations, sources, strict=True)
    )
    out = "all" if cell.merge_op == "all" else "unused"
    return _Cell(cell.label, cell.num_predecessors, cell.num_nodes, out, wires)


def _all_pairs(cell: Any) -> _Cell:
    """The cell of NAS-Bench-201: an operation from each tensor to each later one."""
    wires = tuple(
        _Wire(operation.label, target, source)
        for target, operations in enumerate(cell.layers, start=1)
        for source, operation in enumerate(operations)
    )
    return _Cell(cell.label, 1, cell.num_tensors - 1, "last", wires)
