"""NAS-Bench-101: cells of up to seven vertices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nni
import torch
from nni.mutable import SampleValidationError
from nni.nas.hub.pytorch.nasbench101 import Conv1x1BNReLU, Conv3x3BNReLU, Projection
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import current_model
from torch import nn

from slimsearch.search_spaces._graph import Edge, Graph
from slimsearch.search_spaces._nni.layers import check_size, stem_pooling
from slimsearch.search_spaces._nni.nni_space import FromSample

_VERTICES, _MOST_EDGES = 7, 9
_IN, _OUT = 0, _VERTICES - 1
# Sorted by source: all edges to a vertex come before those from it.
_PAIRS = [(source, target) for source in range(_OUT) for target in range(source + 1, _VERTICES)]
_OPERATIONS: dict[str, Callable[[int], nn.Module]] = {
    "conv3x3-bn-relu": lambda width: Conv3x3BNReLU(width, width),
    "conv1x1-bn-relu": lambda width: Conv1x1BNReLU(width, width),
    "maxpool3x3": lambda width: nn.MaxPool2d(3, 1, 1),
}


class NasBench101(FromSample, ModelSpace):  # type: ignore[misc]
    """423,624 different networks: a cell of up to seven vertices and nine edges, repeated nine times.

    A vertex applies a 3x3 or 1x1 convolution or a max pooling to the sum of its inputs; the output concatenates its
    inputs. Vertices and edges on no path from input to output are left out: they do not count as edges, the operation
    of such a vertex is inactive, and so are edges from vertices that the input does not reach.

    There are three stages of three cells with 128, 256 and 512 channels; the image is halved before the second and the
    third. Images from 64 pixels are max-pooled behind the stem, to 32 to 63 pixels. On 32x32 color images of ten
    classes the networks have 230,000 to 50 million parameters, and take minutes for a thousand images on a CPU. With
    fewer channels they are small::

        class Narrow(NasBench101):
            def __init__(self, in_channels, num_classes, image_size):
                super().__init__(in_channels, num_classes, image_size, channels=16)

    Source: NAS-Bench-101 (Ying et al. 2019), with the layers of NNI's hub. Differences: channels and classes fit the
    data, batch normalization has PyTorch's momentum of 0.1 (the benchmark's 0.003 is for many thousands of steps), and
    unused projections are left out. The choices are edges, as in the benchmark; NNI's are the number of vertices and
    their sources.

    Args:
        in_channels, num_classes, image_size: of the data.
        channels: of the first stage.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, image_size: int = 32, channels: int = 128) -> None:
        super().__init__()
        check_size("nasbench101", image_size)
        sample = current_model()
        if sample is None:
            for source, target in _PAIRS:
                self.add_mutable(nni.choice(_edge(source, target), [0, 1]))
            for vertex in range(1, _OUT):
                self.add_mutable(nni.choice(_operation(vertex), list(_OPERATIONS)))
            return
        self.stem = Conv3x3BNReLU(in_channels, channels)
        self.shrinking = nn.Sequential(*stem_pooling(image_size))
        layers: list[nn.Module] = []
        width = channels
        for stage in range(3):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for _ in range(3):
                inputs = width
                width = channels * 2**stage
                layers.append(_cell(sample, inputs, width))
        self.cells = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float32 -> (N, num_classes) logits."""
        x = self.cells(self.shrinking(self.stem(x)))
        return self.classifier(torch.flatten(self.pool(x), 1))  # type: ignore[no-any-return]

    def check_contains(self, sample: Any) -> SampleValidationError | None:
        """Why `sample` is not a cell of the benchmark; None if it is. Reads only active choices."""
        choices = {mutable.label: mutable for mutable in self.mutables}

        def value(label: str) -> Any:
            problem = choices[label].check_contains(sample)
            if problem is not None:
                raise problem
            return sample[label]

        try:
            live = _live(value)
            if not live:
                return SampleValidationError("no path leads from the input of the cell to its output")
            edges = sum(value(_edge(source, target)) for source, target in _PAIRS if {source, target} <= live)
            if edges > _MOST_EDGES:
                return SampleValidationError(f"the cell has {edges} edges; at most {_MOST_EDGES} are allowed")
            for vertex in live - {_IN, _OUT}:
                value(_operation(vertex))
        except SampleValidationError as problem:
            return problem
        return None

    @staticmethod
    def graph(point: Mapping[str, Any]) -> Graph:
        """The cell: tensor ``2v - 1`` is the input of vertex v, tensor ``2v`` its output."""
        edges = [
            Edge(2 * source, 2 * target - 1, "skip_connect")
            for source, target in _PAIRS
            if point[_edge(source, target)]
        ]
        edges += [
            Edge(2 * vertex - 1, 2 * vertex, point[_operation(vertex)], _operation(vertex)) for vertex in range(1, _OUT)
        ]
        return Graph(tuple(edges), 2 * _OUT - 1, wiring=frozenset(_edge(*pair) for pair in _PAIRS))


def _edge(source: int, target: int) -> str:
    return f"edge_{source}_{target}"


def _operation(vertex: int) -> str:
    return f"op_{vertex}"


def _live(value: Callable[[str], Any]) -> set[int]:
    """Vertices on paths from the input to the output; empty if there is no path.

    Reads only edges that start at a vertex reached from the input.
    """
    reached, edges = {_IN}, []
    for source, target in _PAIRS:
        if source in reached and value(_edge(source, target)):
            reached.add(target)
            edges.append((source, target))
    to_output = {_OUT}
    for source, target in reversed(edges):
        if target in to_output:
            to_output.add(source)
    return reached & to_output if _OUT in reached else set()


def _cell(sample: Mapping[str, Any], inputs: int, outputs: int) -> Cell:
    vertices = sorted(_live(sample.__getitem__))
    operations = [sample[_operation(vertex)] for vertex in vertices[1:-1]]
    sources = [
        [i for i, source in enumerate(vertices[:position]) if sample[_edge(source, target)]]
        for position, target in enumerate(vertices)
    ]
    return Cell(inputs, outputs, operations, sources)


class Cell(nn.Module):
    """A cell whose vertices are all on paths from the first, the input, to the last, the output.

    Vertices with an edge to the output divide its channels among them; others are as wide as their widest target. Edges
    from the input have a 1x1 convolution to the width of their target.

    Args:
        inputs, outputs: channels.
        operations: of the vertices between input and output.
        sources: for each vertex, the vertices with an edge to it.
    """

    def __init__(self, inputs: int, outputs: int, operations: Sequence[str], sources: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.sources = [list(row) for row in sources]
        widths = _widths(outputs, self.sources)
        self.projections = nn.ModuleDict(
            {str(vertex): Projection(inputs, widths[vertex]) for vertex, row in enumerate(sources) if 0 in row}
        )
        self.operations = nn.ModuleList(
            _OPERATIONS[name](widths[vertex]) for vertex, name in enumerate(operations, start=1)
        )
        # A source can have one channel more than its target, if the output's channels do not divide evenly.
        self.truncated = {
            (source, vertex): widths[vertex]
            for vertex, row in enumerate(sources[:-1])
            for source in row
            if source and widths[source] != widths[vertex]
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        last = len(self.sources) - 1
        tensors = [x]
        for vertex in range(1, last):
            incoming = [self._from(source, vertex, tensors) for source in self.sources[vertex]]
            total = incoming[0]
            for tensor in incoming[1:]:
                total = total + tensor
            tensors.append(self.operations[vertex - 1](total))
        outputs = [tensors[source] for source in self.sources[last] if source]
        if not outputs:
            return self._from(0, last, tensors)
        y = torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]
        return y + self._from(0, last, tensors) if 0 in self.sources[last] else y

    def _from(self, source: int, vertex: int, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        if source == 0:
            return self.projections[str(vertex)](tensors[0])  # type: ignore[no-any-return]
        width = self.truncated.get((source, vertex))
        return tensors[source] if width is None else tensors[source][:, :width]


def _widths(outputs: int, sources: Sequence[Sequence[int]]) -> list[int]:
    last = len(sources) - 1
    widths = [0] * last + [outputs]
    to_output = [source for source in sources[last] if source]
    for i, vertex in enumerate(to_output):
        widths[vertex] = outputs // len(to_output) + (i < outputs % len(to_output))
    for vertex in reversed(range(1, last)):
        if vertex not in to_output:
            widths[vertex] = max(widths[target] for target in range(vertex + 1, last) if vertex in sources[target])
    return widths
