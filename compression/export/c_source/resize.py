"""Resize as a call of a C function, with the positions of ONNX Runtime as tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slimsearch.compression.export.c_source.graph import Node
from slimsearch.compression.export.c_source.lowering import Lowering
from slimsearch.compression.export.c_source.program import Kernel
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

# Positions in the input: a function of the result's pixels, the scale, the input's and the result's size.
_POSITIONS: dict[bytes, Callable[[Array, Any, int, int], Array]] = {
    b"align_corners": lambda pixels, scale, size, result_size: pixels * (size - 1) / max(result_size - 1, 1),
    b"asymmetric": lambda pixels, scale, size, result_size: pixels / scale,
    b"half_pixel": lambda pixels, scale, size, result_size: (pixels + 0.5) / scale - 0.5,
    b"pytorch_half_pixel": lambda pixels, scale, size, result_size: (
        (pixels + 0.5) / scale - 0.5 if result_size > 1 else pixels
    ),
}
_NEAREST: dict[bytes, Callable[[Array], Array]] = {
    b"ceil": lambda positions: -(-positions // 1),
    b"floor": lambda positions: positions // 1,
    b"round_prefer_ceil": lambda positions: (positions + 0.5) // 1,
    b"round_prefer_floor": lambda positions: -((0.5 - positions) // 1),
}


def resize(c: Lowering, node: Node) -> None:
    """Lower a Resize of the last one or two dimensions: to the nearest pixel, or linear on floats."""
    import numpy as np

    x, attributes = c.value(node.inputs[0]), node.attributes
    mode, coordinates = (
        attributes.get(name, default)
        for name, default in (("mode", b"nearest"), ("coordinate_transformation_mode", b"half_pixel"))
    )
    if mode not in (b"nearest", b"linear") or coordinates not in _POSITIONS or attributes.get("antialias", 0):
        raise SlimsearchError("a C file resizes to the nearest pixel or linearly, without antialiasing")
    if mode == b"linear" and x.c_type != "float":
        raise SlimsearchError("a C file resizes floats linearly, not integers")
    old = np.array(x.shape, np.float32)
    if len(node.inputs) > 3 and node.inputs[3]:
        shape = c.array(node.inputs[3]).tolist()
        scales = np.array(shape, np.float32) / old
    else:
        scales = c.array(node.inputs[2])
        shape = np.floor(scales * old).astype(int).tolist()
    if len(shape) not in (3, 4) or "axes" in attributes or shape[:2] != list(x.shape[:2]):
        raise SlimsearchError("a C file resizes one or two dimensions behind the channels")
    tables = []
    sizes, result_sizes = (1, *x.shape[2:])[-2:], (1, *shape[2:])[-2:]
    for size, result_size, scale in zip(sizes, result_sizes, [1, *scales[2:]][-2:], strict=True):
        pixels = np.arange(result_size, dtype=np.float32)
        positions = _POSITIONS[coordinates](pixels, np.float32(scale), size, result_size)
        if mode == b"nearest":
            positions = _NEAREST[attributes.get("nearest_mode", b"round_prefer_floor")](positions)
        positions = positions.clip(0, size - 1)
        tables.append(c.constant("positions", positions.astype(np.uint16), "uint16_t"))
        if mode == b"linear":
            # At the border, ONNX Runtime adds two halves of one pixel, which are rounded otherwise than the whole.
            fractions = np.where(positions < size - 1, positions % 1, 0.5)
            tables.append(c.constant("fractions", fractions.astype(np.float32)))
    suffix = "" if x.c_type == "float" else "_u8"
    kernel = Kernel("resize_linear", "resize_linear.c")
    if mode == b"nearest":
        kernel = Kernel(f"resize{suffix}", "resize.c", (("SUFFIX", suffix), ("TYPE", x.c_type)))
    y = c.result(node, shape, x.c_type)
    c.step(kernel, y, x, y, shape[1], *sizes, *result_sizes, *tables)
