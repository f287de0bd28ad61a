"""Cells as graphs, against brute force."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces import Edge, Graph

OPERATIONS = ("none", "skip_connect", "conv", "pool")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    tensors = draw(st.integers(2, 6))
    inputs = draw(st.integers(1, tensors - 1))
    pairs = st.integers(1, tensors - 1).flatmap(lambda t: st.tuples(st.integers(0, t - 1), st.just(t)))
    # Edges come in any order, also two between the same tensors, also into inputs and out of the output.
    ends = draw(st.lists(st.tuples(pairs, st.sampled_from(OPERATIONS)), max_size=10))
    output = draw(st.integers(inputs, tensors - 1))
    return Graph(tuple(Edge(s, t, o, f"choice {i}") for i, ((s, t), o) in enumerate(ends)), output, inputs)


def walks(graph: Graph, start: int) -> Iterator[tuple[Edge, ...]]:
    """Every way from a tensor to the output."""
    if start == graph.output:
        yield ()
    for edge in graph.edges:
        if edge.source == start and edge.operation != "none":
            yield from ((edge, *rest) for rest in walks(graph, edge.target))


@given(graphs())
def test_live_edges_are_on_a_path_from_input_to_output(graph: Graph) -> None:
    found = {edge for start in range(graph.inputs) for way in walks(graph, start) for edge in way}
    assert set(graph.live()) == found
    assert len(graph.live()) == len(found)


@given(graphs())
def test_path_counts_equal_powers_of_the_adjacency_matrix(graph: Graph) -> None:
    matrix = np.zeros((6, 6), dtype=int)
    for edge in graph.edges:
        matrix[edge.source, edge.target] += edge.operation != "none"
    ways = sum(np.linalg.matrix_power(matrix, length) for length in range(6))
    assert graph.paths().total() == ways[: graph.inputs, graph.output].sum()


@given(graphs())
def test_dead_edges_change_nothing(graph: Graph) -> None:
    live = Graph(graph.live(), graph.output, graph.inputs)
    assert live.paths() == graph.paths()
    assert live.live() == graph.live()
    more = (Edge(0, 9, "conv", "beyond"), Edge(7, 8, "conv", "apart"), Edge(0, graph.output, "zero", "nothing"))
    assert Graph((*more, *graph.edges), graph.output, graph.inputs).paths() == graph.paths()


@given(graphs(), st.randoms())
def test_the_order_of_edges_is_irrelevant(graph: Graph, random: Random) -> None:
    edges = list(graph.edges)
    random.shuffle(edges)
    assert Graph(tuple(edges), graph.output, graph.inputs).paths() == graph.paths()


def test_isomorphic_cells_have_equal_paths() -> None:
    """Three branches of two operations each, their inner tensors numbered in every order."""
    branches = (("conv", "pool"), ("conv", "conv"), ("pool", "conv"))
    found = [
        Graph(
            tuple(
                edge
                for inner, (first, second) in zip(order, branches, strict=True)
                for edge in (Edge(0, inner, first, f"0{inner}"), Edge(inner, 4, second, f"{inner}4"))
            ),
            output=4,
        ).paths()
        for order in permutations((1, 2, 3))
    ]
    assert found[0] == dict.fromkeys(branches, 1)
    assert all(paths == found[0] for paths in found)


def test_identities_are_contracted() -> None:
    straight = Graph((Edge(0, 1, "conv", "a"), Edge(1, 2, "pool", "b")), 2)
    operations = ("skip_connect", "conv", "identity", "pool")
    detour = Graph(tuple(Edge(i, i + 1, operation, str(i)) for i, operation in enumerate(operations)), 4)
    assert straight.paths() == detour.paths() == {("conv", "pool"): 1}
    # Two ways that compute the same count twice: their sum is not one of them.
    twice = Graph(
        (Edge(0, 1, "conv", "a"), Edge(0, 2, "skip", "b"), Edge(1, 3, "skip", "c"), Edge(2, 3, "conv", "d")), 3
    )
    assert twice.paths() == {("conv",): 2}
    assert Graph((Edge(0, 1, "skip", "a"),), 1).paths() == {(): 1}


def test_a_cell_without_paths() -> None:
    cell = Graph((Edge(0, 1, "conv", "a"), Edge(1, 2, "none", "b")), 2)
    assert cell.live() == ()
    assert not cell.paths()
    assert not Graph((), 1).paths()


@pytest.mark.parametrize(("source", "target"), [(1, 1), (2, 1), (-1, 0)])
def test_backward_edges_are_errors(source: int, target: int) -> None:
    with pytest.raises(SlimsearchError, match=f"from {source} to {target}: needs 0 <= source < target"):
        Edge(source, target, "conv", "a")
