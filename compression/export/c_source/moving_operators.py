"""Operators that only move numbers of either type, as calls of C functions or as nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from slimsearch.compression.export.c_source.graph import Node
from slimsearch.compression.export.c_source.integer_operators import join
from slimsearch.compression.export.c_source.lowering import Lowering, Operator, Value, strides
from slimsearch.compression.export.c_source.program import Kernel
from slimsearch.compression.export.c_source.resize import resize
from slimsearch.errors import SlimsearchError


def _integers(c: Lowering, node: Node, position: int, attribute: str) -> list[int] | None:
    """Integers of an input, or of an attribute as in older operator sets."""
    if len(node.inputs) > position and node.inputs[position]:
        return [int(number) for number in c.array(node.inputs[position]).ravel()]
    found = node.attributes.get(attribute)
    return None if found is None else [int(number) for number in found]


def _same(c: Lowering, node: Node, shape: Sequence[int]) -> None:
    c.set(node.outputs[0], Value(c.value(node.inputs[0]).base, tuple(shape)))


def _identity(c: Lowering, node: Node) -> None:
    _same(c, node, c.value(node.inputs[0]).shape)


def _flatten(c: Lowering, node: Node) -> None:
    shape = c.value(node.inputs[0]).shape
    axis = node.attributes.get("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    _same(c, node, [math.prod(shape[:axis]), math.prod(shape[axis:])])


def _reshape(c: Lowering, node: Node) -> None:
    x = c.value(node.inputs[0])
    asked = _integers(c, node, 1, "shape") or []
    shape = [
        x.shape[i] if size == 0 and not node.attributes.get("allowzero", 0) else size for i, size in enumerate(asked)
    ]
    if -1 in shape:
        shape[shape.index(-1)] = x.count // -math.prod(shape)
    _same(c, node, shape)


def _squeeze(c: Lowering, node: Node) -> None:
    shape = c.value(node.inputs[0]).shape
    axes = _integers(c, node, 1, "axes")
    gone = {i % len(shape) for i in axes} if axes is not None else {i for i, size in enumerate(shape) if size == 1}
    _same(c, node, [size for i, size in enumerate(shape) if i not in gone])


def _unsqueeze(c: Lowering, node: Node) -> None:
    shape, axes = c.value(node.inputs[0]).shape, _integers(c, node, 1, "axes") or []
    rank = len(shape) + len(axes)
    new, rest = {axis % rank for axis in axes}, iter(shape)
    _same(c, node, [1 if i in new else next(rest) for i in range(rank)])


def _transpose(c: Lowering, node: Node) -> None:
    x = c.value(node.inputs[0])
    order = node.attributes.get("perm", range(len(x.shape))[::-1])
    c.set(node.outputs[0], c.transposed(x, order))


def _concat(c: Lowering, node: Node) -> None:
    parts = [c.value(name) for name in node.inputs]
    if len({part.c_type for part in parts}) > 1:
        raise SlimsearchError("a C file joins values of one type only")
    join(c, node, parts)


def _split(c: Lowering, node: Node) -> None:
    x = c.value(node.inputs[0])
    axis, count = node.attributes.get("axis", 0) % len(x.shape), len(node.outputs)
    piece = -(-x.shape[axis] // count)
    sizes = _integers(c, node, 1, "split") or [min(piece, x.shape[axis] - i * piece) for i in range(count)]
    offset = 0
    for name, size in zip(node.outputs, sizes, strict=True):
        shape = [size if i == axis else other for i, other in enumerate(x.shape)]
        y = c.new(shape, x.c_type)
        c.set(name, y)
        c.copy(x, y, shape, strides(x.shape), strides(shape), (offset, 0))
        offset += size * strides(x.shape)[axis]


def _slice(c: Lowering, node: Node) -> None:
    x = c.value(node.inputs[0])
    starts, ends = _integers(c, node, 1, "starts") or [], _integers(c, node, 2, "ends") or []
    axes = _integers(c, node, 3, "axes") or list(range(len(starts)))
    steps = _integers(c, node, 4, "steps") or [1] * len(starts)
    chosen = [range(size) for size in x.shape]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise SlimsearchError("a C file has slices with positive steps only")
        chosen[axis] = chosen[axis][max(start, -len(chosen[axis])) : end : step]
    if all(len(one) == size for one, size in zip(chosen, x.shape, strict=True)):
        _same(c, node, x.shape)
        return
    distances = strides(x.shape)
    y = c.result(node, [len(one) for one in chosen], x.c_type)
    offset = sum(one.start * distance for one, distance in zip(chosen, distances, strict=True))
    moved = [one.step * distance for one, distance in zip(chosen, distances, strict=True)]
    c.copy(x, y, y.shape, moved, strides(y.shape), (offset, 0))


def _gather(c: Lowering, node: Node) -> None:
    """Choose elements at equal distances along a dimension, or one element, which removes the dimension."""
    x, indices = c.value(node.inputs[0]), c.array(node.inputs[1])
    axis = node.attributes.get("axis", 0) % len(x.shape)
    chosen = [int(number) % x.shape[axis] for number in indices.ravel()]
    step = chosen[1] - chosen[0] if len(chosen) > 1 else 1
    if indices.ndim > 1 or step < 1 or chosen != list(range(chosen[0], chosen[-1] + 1, step)):
        raise SlimsearchError("a C file has Gather with one index, or with indices at equal distances")
    size = [len(chosen) if i == axis else other for i, other in enumerate(x.shape)]
    distances = strides(x.shape)
    offset = chosen[0] * distances[axis]
    distances[axis] *= step
    y = c.result(node, [*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]], x.c_type)
    c.copy(x, y, size, distances, strides(size), (offset, 0))


def _pad(c: Lowering, node: Node) -> None:
    x = c.value(node.inputs[0])
    if node.attributes.get("mode", b"constant") != b"constant":
        raise SlimsearchError("a C file pads with a constant only")
    pads = _integers(c, node, 1, "pads") or []
    rank = len(x.shape)
    axes = _integers(c, node, 3, "axes") or list(range(rank))
    before, behind = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        before[axis], behind[axis] = pads[position], pads[len(axes) + position]
    given = len(node.inputs) > 2 and node.inputs[2]
    value = c.number(node.inputs[2]) if given else 0
    shape = [size + before[i] + behind[i] for i, size in enumerate(x.shape)]
    size = [size + min(before[i], 0) + min(behind[i], 0) for i, size in enumerate(x.shape)]
    y, floats = c.result(node, shape, x.c_type), x.c_type == "float"
    suffix = "" if floats else "_u8"
    kernel = Kernel("fill" + suffix, "fill.c", (("TYPE", x.c_type), ("SUFFIX", suffix)))
    c.step(kernel, y, y, y.count, float(value) if floats else int(value))
    source, target = strides(x.shape), strides(shape)
    offsets = (
        sum(max(-n, 0) * d for n, d in zip(before, source, strict=True)),
        sum(max(n, 0) * d for n, d in zip(before, target, strict=True)),
    )
    c.copy(x, y, size, source, target, offsets)


def _expand(c: Lowering, node: Node) -> None:
    x, asked = c.value(node.inputs[0]), _integers(c, node, 1, "shape") or []
    rank = max(len(x.shape), len(asked))
    own, other = [1] * (rank - len(x.shape)) + list(x.shape), [1] * (rank - len(asked)) + asked
    shape = [max(pair) for pair in zip(own, other, strict=True)]
    if shape == own:
        _same(c, node, shape)
        return
    distances = [0 if size == 1 else distance for size, distance in zip(own, strides(own), strict=True)]
    y = c.result(node, shape, x.c_type)
    c.copy(x, y, shape, distances, strides(shape))


MOVING_OPERATORS: dict[str, Operator] = {
    "Concat": _concat,
    "Dropout": _identity,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _identity,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": resize,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Operators that move numbers, by kind."""
