"""Operators on uint8 as calls of C functions, with the arithmetic of ONNX Runtime's kernels."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from slimsearch.compression.export.c_source.float_operators import conv_window, pool_window, repeated
from slimsearch.compression.export.c_source.graph import LOOK_UP, Node
from slimsearch.compression.export.c_source.lowering import Lowering, Operator, Value, strides
from slimsearch.compression.export.c_source.program import Constant, Kernel
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_ROUNDED = ("rounded.c",)


def _value(c: Lowering, name: str) -> Value:
    value = c.value(name)
    if value.c_type != "uint8_t":
        raise SlimsearchError("a C file has integer operators on uint8 only")
    return value


def _scale(c: Lowering, name: str) -> Any:
    import numpy as np

    return np.float32(c.number(name))


def _zero(c: Lowering, name: str) -> int:
    """A zero point of activations."""
    if c.array(name).dtype.name != "uint8":
        raise SlimsearchError("a C file has activations of uint8 only")
    return int(c.number(name))


def _weights(c: Lowering, name: str, zero: str) -> Array:
    weights = c.array(name)
    if weights.dtype.name != "int8" or c.array(zero).any():
        raise SlimsearchError("a C file has integer weights of int8 with zero point 0 only")
    return weights


def _bias(c: Lowering, node: Node, position: int, outputs: int) -> Constant:
    import numpy as np

    given = len(node.inputs) > position and node.inputs[position]
    return c.constant("bias", c.array(node.inputs[position]) if given else np.zeros(outputs, np.int32), "int32_t")


def _factors(scale_x: Any, scale_w: Array, scale_y: Any, outputs: int) -> Array:
    """What sums are multiplied by, as ONNX Runtime computes it: float32 after each operation."""
    import numpy as np

    products = scale_x * scale_w.astype(np.float32).ravel()
    return np.broadcast_to(products if scale_y is None else products / scale_y, (outputs,)).copy()


def _conv(c: Lowering, node: Node) -> None:
    name_x, scale_x, zero_x, name_w, scale_w, zero_w, scale_y, zero_y = node.inputs[:8]
    x, filters = _value(c, name_x), _weights(c, name_w, zero_w)
    window, shape = conv_window(c, node, x.shape, filters.shape)
    factors = _factors(_scale(c, scale_x), c.array(scale_w), _scale(c, scale_y), len(filters))
    y = c.result(node, shape, "uint8_t")
    c.step(
        Kernel("conv_u8", "conv_u8.c", (), ("window.c", *_ROUNDED)), y, x, y, window,
        c.constant("weights", filters, "int8_t"), _bias(c, node, 8, len(filters)), c.constant("scales", factors),
        _zero(c, zero_x), _zero(c, zero_y),
    )  # fmt: skip


def _gemm(c: Lowering, node: Node) -> None:
    name_x, scale_x, zero_x, name_w, scale_w, zero_w = node.inputs[:6]
    if node.attributes.get("transA", 0) or node.attributes.get("alpha", 1.0) != 1:
        raise SlimsearchError("a C file has no QGemm with transA or alpha")
    weights = _weights(c, name_w, zero_w)
    weights = weights if node.attributes.get("transB", 0) else weights.T.copy()
    scale_y = node.inputs[7] if len(node.inputs) > 8 and node.inputs[7] else None
    zero_y = node.inputs[8] if scale_y is not None else None
    _linear(c, node, name_x, scale_x, zero_x, weights, scale_w, scale_y, zero_y, _bias(c, node, 6, len(weights)))


def _matmul(c: Lowering, node: Node) -> None:
    import numpy as np

    name_x, scale_x, zero_x, name_w, scale_w, zero_w, scale_y, zero_y = node.inputs
    if not c.is_constant(name_w):
        _matmul_of_results(c, node)
        return
    weights = _weights(c, name_w, zero_w)
    if weights.ndim != 2:
        raise SlimsearchError("a C file has integer products with one matrix of weights only")
    bias = c.constant("bias", np.zeros(weights.shape[1], np.int32), "int32_t")
    _linear(c, node, name_x, scale_x, zero_x, weights.T.copy(), scale_w, scale_y, zero_y, bias)


def _matmul_of_results(c: Lowering, node: Node) -> None:
    a, b = _value(c, node.inputs[0]), _value(c, node.inputs[3])
    if a.shape[:-2] != b.shape[:-2]:
        raise SlimsearchError("a C file multiplies matrices in equal numbers only")
    rows, depth, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    scale_a, scale_b, scale_y = (_scale(c, node.inputs[i]) for i in (1, 4, 6))
    zeros = [_zero(c, node.inputs[i]) for i in (2, 5, 7)]
    y = c.result(node, [*a.shape[:-1], columns], "uint8_t")
    c.step(
        Kernel("matmul_u8", "matmul_u8.c", (), _ROUNDED), y, a, b, y, math.prod(a.shape[:-2]), rows, depth, columns,
        c.scalar("factor", scale_a * scale_b / scale_y), *zeros,
    )  # fmt: skip


def _linear(
    c: Lowering, node: Node, name_x: str, scale_x: str, zero_x: str, weights: Array, scale_w: str,
    scale_y: str | None, zero_y: str | None, bias: Constant,
) -> None:  # fmt: skip
    x = _value(c, name_x)
    outputs, depth = weights.shape
    factors = _factors(_scale(c, scale_x), c.array(scale_w), None if scale_y is None else _scale(c, scale_y), outputs)
    y = c.result(node, [*x.shape[:-1], outputs], "float" if zero_y is None else "uint8_t")
    name = "linear_u8_float" if zero_y is None else "linear_u8"
    zeros = [_zero(c, zero) for zero in (zero_x, zero_y) if zero is not None]
    c.step(
        Kernel(name, f"{name}.c", (), () if zero_y is None else _ROUNDED), y, x, y, x.count // depth, depth, outputs,
        c.constant("weights", weights, "int8_t"), bias, c.constant("scales", factors), *zeros,
    )  # fmt: skip


def _add(c: Lowering, node: Node) -> None:
    import numpy as np

    scale_a, zero_a = _scale(c, node.inputs[1]), _zero(c, node.inputs[2])
    scale_b, zero_b = _scale(c, node.inputs[4]), _zero(c, node.inputs[5])
    scale_y, zero_y = _scale(c, node.inputs[6]), _zero(c, node.inputs[7])
    full, other, exchanged, sizes = repeated(_value(c, node.inputs[0]), _value(c, node.inputs[3]))
    terms = [(scale_a / scale_y, zero_a), (scale_b / scale_y, zero_b)]
    (factor, zero), (other_factor, other_zero) = terms[::-1] if exchanged else terms
    # ONNX Runtime adds the repeated operand first, or the second one of two arrays. Its compiler joins the product of
    # the last one's zero point and the sum of both, which is rounded once; in float64 the product is exact.
    if exchanged and sizes[2] == 1:
        zeros = np.float64(other_factor) * other_zero + factor * np.float32(zero)
        name, expression = "add_to_u8", "fmaf((float)b[c], p[1], fmaf((float)*a++, p[0], p[2]))"
    else:
        zeros = np.float64(factor) * zero + other_factor * np.float32(other_zero)
        name, expression = "add_u8", "fmaf((float)*a++, p[0], fmaf((float)b[c], p[1], p[2]))"
    numbers = c.scalar("factors", factor, other_factor, np.float32(zero_y) - np.float32(zeros))
    y = c.result(node, full.shape, "uint8_t")
    kernel = Kernel(name, "add_u8.c", (("NAME", name), ("EXPRESSION", expression)), _ROUNDED)
    in_place = (full, other) if other.count == full.count else (full,)
    c.step(kernel, y, full, other, y, *sizes, numbers, in_place=in_place)


def _mul(c: Lowering, node: Node) -> None:
    scale_a, zero_a = _scale(c, node.inputs[1]), _zero(c, node.inputs[2])
    scale_b, zero_b = _scale(c, node.inputs[4]), _zero(c, node.inputs[5])
    scale_y, zero_y = _scale(c, node.inputs[6]), _zero(c, node.inputs[7])
    full, other, exchanged, sizes = repeated(_value(c, node.inputs[0]), _value(c, node.inputs[3]))
    zeros = (zero_b, zero_a) if exchanged else (zero_a, zero_b)
    y = c.result(node, full.shape, "uint8_t")
    kernel = Kernel("mul_u8", "mul_u8.c", (), _ROUNDED)
    in_place = (full, other) if other.count == full.count else (full,)
    c.step(
        kernel, y, full, other, y, *sizes, c.scalar("factor", scale_a * scale_b / scale_y), *zeros, zero_y,
        in_place=in_place,
    )  # fmt: skip


def _global_average(c: Lowering, node: Node) -> None:
    import numpy as np

    if node.attributes.get("channels_last", 0):
        raise SlimsearchError("a C file has channels before pixels")
    x = _value(c, node.inputs[0])
    channels, pixels = x.shape[1], math.prod(x.shape[2:])
    factor = _scale(c, node.inputs[1]) / (_scale(c, node.inputs[3]) * np.float32(pixels))
    y = c.result(node, [*x.shape[:2], *[1] * (len(x.shape) - 2)], "uint8_t")
    zeros = _zero(c, node.inputs[2]), _zero(c, node.inputs[4])
    kernel = Kernel("global_average_u8", "global_average_u8.c", (), _ROUNDED)
    c.step(kernel, y, x, y, channels, pixels, c.scalar("factor", factor), *zeros, in_place=(x,))


def _average_pool(c: Lowering, node: Node) -> None:
    if node.attributes.get("channels_last", 0):
        raise SlimsearchError("a C file has channels before pixels")
    x = _value(c, node.inputs[0])
    window, shape, padded = pool_window(c, node, x.shape)
    y = c.result(node, shape, "uint8_t")
    scales = c.scalar("scales", _scale(c, node.inputs[1]), _scale(c, node.inputs[3]))
    zeros = _zero(c, node.inputs[2]), _zero(c, node.inputs[4])
    kernel = Kernel("average_pool_u8", "average_pool_u8.c", (), ("window.c", *_ROUNDED))
    with_padding = node.attributes.get("count_include_pad", 0)
    c.step(kernel, y, x, y, window, with_padding, scales, *zeros, in_place=() if padded else (x,))


def _softmax(c: Lowering, node: Node) -> None:
    """With ONNX Runtime's table of exponentials, whose sum over a row is far from the largest float."""
    import numpy as np

    name_x, scale_x, _, scale_y, zero_y = node.inputs
    x, back = c.with_last(_value(c, name_x), node.attributes.get("axis", -1))
    scale, largest = float(_scale(c, scale_x)), float(np.finfo(np.float32).max)
    shift = max(0.0, math.log(largest / x.shape[-1]) - 5)
    table = np.exp((np.arange(256) - 255) * scale + shift).astype(np.float32)
    factor = c.scalar("factor", np.floor(np.float32(1) / _scale(c, scale_y)))
    y = c.new(x.shape, "uint8_t")
    c.step(
        Kernel("softmax_u8", "softmax_u8.c", (), _ROUNDED), y, x, y, x.count // x.shape[-1], x.shape[-1],
        c.constant("exponentials", table), factor, _zero(c, zero_y), in_place=(x,),
    )  # fmt: skip
    c.set(node.outputs[0], back(y))


def _concat(c: Lowering, node: Node) -> None:
    """Concatenation, with a look-up table for each part of another scale."""
    import numpy as np

    scale_y, zero_y = _scale(c, node.inputs[0]), _zero(c, node.inputs[1])
    parts = []
    for name, scale, zero in zip(node.inputs[2::3], node.inputs[3::3], node.inputs[4::3], strict=True):
        part, scale_x, zero_x = _value(c, name), _scale(c, scale), _zero(c, zero)
        if (scale_x, zero_x) != (scale_y, zero_y):
            numbers = (np.arange(256).astype(np.float32) - np.float32(zero_x)) * scale_x / scale_y
            table = np.clip(np.rint(numbers) + zero_y, 0, 255).astype(np.uint8)
            changed = c.new(part.shape, "uint8_t")
            _look_up(c, part, changed, c.constant("table", table, "uint8_t"), 1)
            part = changed
        parts.append(part)
    join(c, node, parts)


def join(c: Lowering, node: Node, parts: list[Value]) -> None:
    """Concatenate `parts` of one type along the operator's axis."""
    shape = list(parts[0].shape)
    axis = node.attributes["axis"] % len(shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    y = c.result(node, shape, parts[0].c_type)
    offset = 0
    for part in parts:
        c.copy(part, y, part.shape, strides(part.shape), strides(shape), (0, offset))
        offset += math.prod(part.shape[axis:])


def _look_up(c: Lowering, x: Value, y: Value, table: Constant, channels: int) -> None:
    c.step(Kernel("look_up", "look_up.c"), y, x, y, channels, y.count // channels, table, in_place=(x,))


def _table(c: Lowering, node: Node) -> None:
    x = _value(c, node.inputs[0])
    table = Constant("table", "uint8_t", node.channels * 256, functools.partial(c.graph.table, node))
    _look_up(c, x, c.result(node, x.shape, "uint8_t"), table, node.channels)


def _quantize(c: Lowering, node: Node) -> None:
    x, zero = c.value(node.inputs[0]), _zero(c, node.inputs[2])
    if x.c_type != "float":
        raise SlimsearchError("a C file quantizes floats only")
    y = c.result(node, x.shape, "uint8_t")
    scale = c.scalar("scale", _scale(c, node.inputs[1]))
    c.step(Kernel("quantize", "quantize.c", (), _ROUNDED), y, x, y, y.count, scale, zero, in_place=(x,))


def _cast(c: Lowering, node: Node) -> None:
    """Pixels as floats."""
    from onnx import TensorProto

    x = _value(c, node.inputs[0])
    if node.attributes["to"] != TensorProto.FLOAT:
        raise SlimsearchError("a C file converts integers to floats only")
    c.integers[node.outputs[0]] = x, c.scalar("scale", 1), 0


def _dequantize(c: Lowering, node: Node) -> None:
    x, zero = _value(c, node.inputs[0]), _zero(c, node.inputs[2])
    c.integers[node.outputs[0]] = x, c.scalar("scale", _scale(c, node.inputs[1])), zero


INTEGER_OPERATORS: dict[str, Operator] = {
    "Cast": _cast,
    "DequantizeLinear": _dequantize,
    LOOK_UP: _table,
    "QGemm": _gemm,
    "QLinearAdd": _add,
    "QLinearAveragePool": _average_pool,
    "QLinearConcat": _concat,
    "QLinearConv": _conv,
    "QLinearGlobalAveragePool": _global_average,
    "QLinearMatMul": _matmul,
    "QLinearMul": _mul,
    "QLinearSoftmax": _softmax,
    "QuantizeLinear": _quantize,
}
"""Operators on uint8 by kind."""
