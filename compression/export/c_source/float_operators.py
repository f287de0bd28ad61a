"""Operators on float32 as calls of C functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slimsearch.compression.export.c_source.graph import Node, clip_limits
from slimsearch.compression.export.c_source.lowering import Lowering, Operator, Value
from slimsearch.compression.export.c_source.program import Constant, Kernel
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


def conv_window(c: Lowering, node: Node, shape: Sequence[int], filters: Sequence[int]) -> tuple[Constant, list[int]]:
    """The window of a convolution with filters (outputs, inputs of a group, kernel...), and its result's shape."""
    group = node.attributes.get("group", 1)
    sizes, numbers = _moves(node, shape, filters[2:])
    window = c.window(channels=filters[1], group_outputs=filters[0] // group, outputs=filters[0], **numbers)
    return window, [1, filters[0], *sizes]


def pool_window(c: Lowering, node: Node, shape: Sequence[int]) -> tuple[Constant, list[int], bool]:
    """The window of a pooling, its result's shape, and whether there is padding."""
    kernel = node.attributes.get("kernel_shape", shape[2:])
    if node.attributes.get("ceil_mode", 0):
        raise SlimsearchError("a C file has no pooling with ceil_mode")
    sizes, numbers = _moves(node, shape, kernel)
    window = c.window(channels=1, group_outputs=1, outputs=shape[1], **numbers)
    return window, [1, shape[1], *sizes], bool(sum(node.attributes.get("pads", ())))


def _moves(node: Node, shape: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], dict[str, int]]:
    """Sizes of the result of a window that moves over (1, channels, ...), and the window's numbers."""
    attributes, count = node.attributes, len(shape) - 2
    if count not in (1, 2):
        raise SlimsearchError(f"a C file has convolutions and poolings of one or two dimensions, not {count}")
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or attributes.get("output_shape"):
        raise SlimsearchError("a C file has no automatic padding")
    steps, spread = (list(attributes.get(name, [1] * count)) for name in ("strides", "dilations"))
    pads = list(attributes.get("pads", [0] * 2 * count))
    reaches = [spread[i] * (kernel[i] - 1) - pads[i] - pads[count + i] for i in range(count)]
    if node.kind == "ConvTranspose":
        added = attributes.get("output_padding", [0] * count)
        sizes = [steps[i] * (size - 1) + reaches[i] + 1 + added[i] for i, size in enumerate(shape[2:])]
    else:
        sizes = [(size - reaches[i] - 1) // steps[i] + 1 for i, size in enumerate(shape[2:])]

    def two(numbers: Sequence[int], least: int) -> list[int]:
        return [*[least] * (2 - count), *numbers[:count]]

    names = (("height", "width"), ("out_height", "out_width"), ("kernel_height", "kernel_width"),
             ("stride_height", "stride_width"), ("dilation_height", "dilation_width"), ("top", "left"))  # fmt: skip
    rows = (two(shape[2:], 1), two(sizes, 1), two(kernel, 1), two(steps, 1), two(spread, 1), two(pads, 0))
    return sizes, {n: int(v) for pair, row in zip(names, rows, strict=True) for n, v in zip(pair, row, strict=True)}


# How the kernels read weights: the names of functions, parameters, a weight, and what a sum is multiplied by.
_FORMS = {
    "": ("float", "const float *w", "{}", ""),
    "_int8": ("int8_t", "const int8_t *w, const float *scale", "(float){}", " * scale[o]"),
    "_half": ("uint16_t", "const uint16_t *w", "half({})", ""),
    "_table": ("uint8_t", "const uint8_t *w, const float *table", "table[{}]", ""),
}


_OutputsFirst = Callable[["Array"], "Array"]


def _as_it_is(array: Array) -> Array:
    return array


def _transposed(array: Array) -> Array:
    return array.T


def _weights(c: Lowering, name: str, outputs_first: _OutputsFirst = _as_it_is) -> tuple[str, list[Constant]]:
    """How a weight is stored (see `_FORMS`), and the constants that hold it, outputs first."""
    import numpy as np

    def weights(array: Array, c_type: str) -> Constant:
        return c.constant("weights", np.ascontiguousarray(outputs_first(array)), c_type)

    weight = c.array(name)
    stored = c.graph.stored.get(name)
    if stored is None:
        return "", [weights(weight, "float")]
    if stored.scales is not None:
        every = outputs_first(np.broadcast_to(stored.scales, weight.shape))
        every = every.reshape(len(every), -1)
        if (every != every[:, :1]).any():  # not those of outputs
            return "", [weights(weight, "float")]
        return "_int8", [weights(stored.values, "int8_t"), c.constant("scales", every[:, 0].copy())]
    if stored.table is not None:
        return "_table", [weights(stored.values, "uint8_t"), c.constant("table", stored.table)]
    return "_half", [weights(stored.values.view(np.uint16), "uint16_t")]


def _with_weights(name: str, form: str) -> Kernel:
    c_type, parameters, value, factor = _FORMS[form]
    replacements = (
        ("SUFFIX", form), ("TYPE", c_type), ("PARAMETERS", parameters), ("VALUE", value.format("weights[j]")),
        ("SCALED", factor),
    )  # fmt: skip
    needs = (("window.c",) if name != "linear" else ()) + (("half.c",) if form == "_half" else ())
    return Kernel(name + form, f"{name}.c", replacements, needs)


def _limits(node: Node) -> tuple[float, float]:
    return node.limits or (-math.inf, math.inf)


def _conv(c: Lowering, node: Node) -> None:
    x, filters = c.value(node.inputs[0]), c.array(node.inputs[1])
    window, shape = conv_window(c, node, x.shape, filters.shape)
    form, weights = _weights(c, node.inputs[1])
    y = c.result(node, shape)
    bias = _bias(c, node, len(filters))
    c.step(_with_weights("conv", form), y, x, y, window, *weights, bias, *_limits(node))


def _conv_transpose(c: Lowering, node: Node) -> None:
    x, filters = c.value(node.inputs[0]), c.array(node.inputs[1])
    group = node.attributes.get("group", 1)

    def outputs_first(array: Array) -> Array:
        """(inputs, outputs of a group, ...) -> (outputs, inputs of a group, ...)."""
        grouped = array.reshape(group, -1, *array.shape[1:]).swapaxes(1, 2)
        return grouped.reshape(-1, *grouped.shape[2:])

    window, shape = conv_window(c, node, x.shape, outputs_first(filters).shape)
    form, weights = _weights(c, node.inputs[1], outputs_first)
    y = c.result(node, shape)
    c.step(_with_weights("conv_transpose", form), y, x, y, window, *weights, _bias(c, node, shape[1]))


def _bias(c: Lowering, node: Node, outputs: int) -> Constant:
    import numpy as np

    biased = len(node.inputs) > 2 and node.inputs[2]
    return c.constant("bias", c.array(node.inputs[2]) if biased else np.zeros(outputs, np.float32))


def _gemm(c: Lowering, node: Node) -> None:
    import numpy as np

    attributes = node.attributes
    if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1 or attributes.get("beta", 1.0) != 1:
        raise SlimsearchError("a C file has no Gemm with transA, alpha or beta")
    x = c.value(node.inputs[0])
    form, weights = _weights(c, node.inputs[1], _as_it_is if attributes.get("transB", 0) else _transposed)
    shape = c.array(node.inputs[1]).shape
    outputs, depth = shape if attributes.get("transB", 0) else shape[::-1]
    biased = len(node.inputs) > 2 and node.inputs[2]
    bias = np.zeros(outputs, np.float32)
    if biased:
        given = c.array(node.inputs[2])
        if given.size not in (1, outputs):
            raise SlimsearchError("a C file has no Gemm with a matrix as its bias")
        bias = np.broadcast_to(given.ravel(), (outputs,)).copy()
    y = c.result(node, [*x.shape[:-1], outputs])
    rows = x.count // depth
    c.step(
        _with_weights("linear", form), y, x, y, rows, depth, outputs, *weights, c.constant("bias", bias),
        *_limits(node),
    )  # fmt: skip


def _matmul(c: Lowering, node: Node) -> None:
    if c.is_constant(node.inputs[1]) and c.array(node.inputs[1]).ndim == 2:
        _gemm(c, node)
        return
    a, b = c.value(node.inputs[0]), c.value(node.inputs[1])
    if a.shape[:-2] != b.shape[:-2] or node.limits:
        raise SlimsearchError("a C file multiplies matrices in equal numbers only")
    rows, depth, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    y = c.result(node, [*a.shape[:-1], columns])
    c.step(Kernel("matmul", "matmul.c"), y, a, b, y, math.prod(a.shape[:-2]), rows, depth, columns)


def _max_pool(c: Lowering, node: Node) -> None:
    x = c.value(node.inputs[0])
    window, shape, padded = pool_window(c, node, x.shape)
    floats = x.c_type == "float"
    replacements = (
        ("SUFFIX", "" if floats else "_u8"), ("TYPE", x.c_type), ("LEAST", "-FLT_MAX" if floats else "0")
    )  # fmt: skip
    kernel = Kernel("max_pool" + replacements[0][1], "max_pool.c", replacements, ("window.c",))
    y = c.result(node, shape, x.c_type)
    c.step(kernel, y, x, y, window, in_place=() if padded else (x,))


def _average_pool(c: Lowering, node: Node) -> None:
    x = c.value(node.inputs[0])
    window, shape, padded = pool_window(c, node, x.shape)
    y = c.result(node, shape)
    kernel = Kernel("average_pool", "average_pool.c", (), ("window.c",))
    c.step(kernel, y, x, y, window, node.attributes.get("count_include_pad", 0), in_place=() if padded else (x,))


_REDUCTIONS = {
    "ReduceSum": ("sum", "Sum", "result + next", ""),
    "ReduceMean": ("mean", "Mean", "result + next", " / (float)middle"),
    "ReduceMax": ("largest", "Maximum", "next > result ? next : result", ""),
}


def _reduce(c: Lowering, node: Node, axes: Sequence[int] | None = None) -> None:
    """Reductions over neighboring dimensions."""
    name = node.inputs[0]
    integers = c.integers.get(name) if node.kind == "ReduceMean" else None
    x = c.value(name) if integers is None else integers[0]
    rank = len(x.shape)
    if axes is None:
        given = node.attributes.get("axes")
        if len(node.inputs) > 1 and node.inputs[1]:
            given = c.array(node.inputs[1]).tolist()
        axes = sorted(axis % rank for axis in (range(rank) if given is None else given))
    if list(axes) != list(range(axes[0], axes[-1] + 1)):
        raise SlimsearchError("a C file reduces neighboring dimensions only")
    keep = node.attributes.get("keepdims", 1)
    shape = [1 if i in axes else size for i, size in enumerate(x.shape) if keep or i not in axes]
    parts = (x.shape[: axes[0]], x.shape[axes[0] : axes[-1] + 1], x.shape[axes[-1] + 1 :])
    sizes = [math.prod(part) for part in parts]
    y = c.result(node, shape, "float" if integers is not None else x.c_type)
    if integers is not None:
        c.step(Kernel("mean_u8", "mean_u8.c"), y, x, y, *sizes, *integers[1:])
        return
    name, title, combined, end = _REDUCTIONS[node.kind]
    name += "" if x.c_type == "float" else "_u8"
    words = (("NAME", name), ("WHAT", title), ("TYPE", x.c_type), ("STEP", combined), ("END", end))
    kernel = Kernel(name, "reduce.c", words)
    c.step(kernel, y, x, y, *sizes, in_place=(x,))


def _global_pool(c: Lowering, node: Node) -> None:
    kind = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}[node.kind]
    _reduce(c, Node(kind, node.inputs, node.outputs), range(2, len(c.value(node.inputs[0]).shape)))


_FUNCTIONS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    # kind: name, expression of v, attributes as parameters
    "Abs": ("absolute", "v < 0 ? -v : v", ()),
    "Elu": ("elu", "v < 0 ? alpha * (expf(v) - 1) : v", ("alpha",)),
    "Erf": ("erf_", "erff(v)", ()),
    "Exp": ("exp_", "expf(v)", ()),
    "Gelu": ("gelu", "0.5f * v * (1 + erff(v * 0.70710678f))", ()),
    "HardSigmoid": ("hard_sigmoid", "fmaxf(0, fminf(1, alpha * v + beta))", ("alpha", "beta")),
    "HardSwish": ("hard_swish", "v * fmaxf(0, fminf(1, v / 6 + 0.5f))", ()),
    "LeakyRelu": ("leaky_relu", "v < 0 ? alpha * v : v", ("alpha",)),
    "Neg": ("negative", "-v", ()),
    "Relu": ("relu", "v < 0 ? 0 : v", ()),
    "Sigmoid": ("sigmoid", "1 / (1 + expf(-v))", ()),
    "Softplus": ("softplus", "logf(expf(v) + 1)", ()),
    "Sqrt": ("square_root", "sqrtf(v)", ()),
    "Tanh": ("tanh_", "tanhf(v)", ()),
}
_DEFAULTS = {("Elu", "alpha"): 1.0, ("HardSigmoid", "alpha"): 0.2, ("HardSigmoid", "beta"): 0.5,
             ("LeakyRelu", "alpha"): 0.01}  # fmt: skip


def _unary(c: Lowering, node: Node) -> None:
    name, expression, names = _FUNCTIONS[node.kind]
    numbers = [float(node.attributes.get(key, _DEFAULTS[node.kind, key])) for key in names]
    _elementwise(c, node, name, expression, dict(zip(names, numbers, strict=True)))


def _clip(c: Lowering, node: Node) -> None:
    low, high = clip_limits(node, c.graph.constants)
    _elementwise(c, node, "clip", "v < low ? low : v > high ? high : v", {"low": low, "high": high})


def _elementwise(c: Lowering, node: Node, name: str, expression: str, numbers: Mapping[str, float]) -> None:
    if node.attributes.get("approximate", b"none") != b"none":
        raise SlimsearchError("a C file has the exact Gelu only")
    x = c.value(node.inputs[0])
    parameters = "".join(f", float {key}" for key in numbers)
    kernel = Kernel(name, "unary.c", (("NAME", name), ("PARAMETERS", parameters), ("EXPRESSION", expression)))
    y = c.result(node, x.shape)
    c.step(kernel, y, x, y, y.count, *map(float, numbers.values()), in_place=(x,))


_PAIRS = {
    # kind: name, expression, name and expression with exchanged arguments
    "Add": ("add", "*a + b[c]", "add", "*a + b[c]"),
    "Sub": ("subtract", "*a - b[c]", "subtract_from", "b[c] - *a"),
    "Mul": ("multiply", "*a * b[c]", "multiply", "*a * b[c]"),
    "Div": ("divide", "*a / b[c]", "divide_by", "b[c] / *a"),
    "Max": ("maximum", "*a > b[c] ? *a : b[c]", "maximum", "*a > b[c] ? *a : b[c]"),
    "Min": ("minimum", "*a < b[c] ? *a : b[c]", "minimum", "*a < b[c] ? *a : b[c]"),
    "Pow": ("power", "powf(*a, b[c])", "power_of", "powf(b[c], *a)"),
}


def repeated(a: Value, b: Value) -> tuple[Value, Value, bool, tuple[int, int, int]]:
    """The operand of the result's shape, the other one, whether they are exchanged, and how the other one repeats.

    Raises:
        SlimsearchError: none has the shape of the result, or the other one is repeated in more ways.
    """
    exchanged = a.count < b.count
    full, other = (b, a) if exchanged else (a, b)
    if len(other.shape) > len(full.shape):
        full = Value(full.base, (1,) * (len(other.shape) - len(full.shape)) + full.shape)
    sizes = (1,) * (len(full.shape) - len(other.shape)) + other.shape
    equal = [i for i, size in enumerate(sizes) if size != 1]
    first, last = (equal[0], equal[-1]) if equal else (0, -1)
    if any(sizes[i] not in (1, full.shape[i]) for i in range(len(sizes))) or any(
        sizes[i] != full.shape[i] for i in range(first, last + 1)
    ):
        raise SlimsearchError(
            f"a C file cannot compute with values of {a.shape} and {b.shape}: one has to fit into the other"
        )
    if not equal:
        return full, other, exchanged, (1, 1, full.count)
    parts = (full.shape[:first], full.shape[first : last + 1], full.shape[last + 1 :])
    outer, channels, inner = (math.prod(part) for part in parts)
    return full, other, exchanged, (outer, channels, inner)


def _binary(c: Lowering, node: Node) -> None:
    if len(node.inputs) != 2:
        raise SlimsearchError(f"a C file has {node.kind} of two values only")
    full, other, exchanged, sizes = repeated(c.value(node.inputs[0]), c.value(node.inputs[1]))
    name, expression = _PAIRS[node.kind][2 * exchanged : 2 * exchanged + 2]
    kernel = Kernel(name, "binary.c", (("NAME", name), ("EXPRESSION", expression)))
    y = c.result(node, full.shape)
    c.step(kernel, y, full, other, y, *sizes, in_place=(full, other) if other.count == full.count else (full,))


def _sum(c: Lowering, node: Node) -> None:
    for position in range(1, len(node.inputs)):
        first = node.inputs[0] if position == 1 else node.outputs[0]
        _binary(c, Node("Add", [first, node.inputs[position]], node.outputs))


def _batch_norm(c: Lowering, node: Node) -> None:
    import numpy as np

    x = c.value(node.inputs[0])
    scale, shift, mean, variance = (c.array(name) for name in node.inputs[1:5])
    gain = scale / np.sqrt(variance + np.float32(node.attributes.get("epsilon", 1e-5)))
    y = c.result(node, x.shape)
    numbers = c.constant("scale", gain), c.constant("shift", shift - mean * gain)
    inner = x.count // x.shape[1]
    c.step(Kernel("scale_shift", "scale_shift.c"), y, x, y, x.shape[1], inner, *numbers, in_place=(x,))


def _layer_norm(c: Lowering, node: Node) -> None:
    import numpy as np

    x = c.value(node.inputs[0])
    axis = node.attributes.get("axis", -1) % len(x.shape)
    columns = math.prod(x.shape[axis:])
    scale = c.array(node.inputs[1])
    shift = c.array(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.zeros_like(scale)
    y = c.result(node, x.shape)
    c.step(
        _normalize("layer_norm", "column", "i"), y, x, y, x.count // columns, columns, c.constant("scale", scale),
        c.constant("shift", shift), c.scalar("epsilon", node.attributes.get("epsilon", 1e-5)), in_place=(x,),
    )  # fmt: skip


def _normalize(name: str, what: str, place: str) -> Kernel:
    return Kernel(name, "normalize.c", (("NAME", name), ("WHAT", what), ("PLACE", place)))


def _euclidean_norm(c: Lowering, node: Node) -> None:
    squares, sums = (f"{node.outputs[0]}.{name}" for name in ("squares", "sums"))
    _binary(c, Node("Mul", [node.inputs[0], node.inputs[0]], [squares]))
    _reduce(c, Node("ReduceSum", [squares, *node.inputs[1:]], [sums], node.attributes))
    _unary(c, Node("Sqrt", [sums], node.outputs))


def _instance_norm(c: Lowering, node: Node) -> None:
    x = c.value(node.inputs[0])
    y = c.result(node, x.shape)
    c.step(
        _normalize("instance_norm", "row", "row"), y, x, y, x.shape[1], x.count // x.shape[1],
        c.constant("scale", c.array(node.inputs[1])), c.constant("shift", c.array(node.inputs[2])),
        c.scalar("epsilon", node.attributes.get("epsilon", 1e-5)), in_place=(x,),
    )  # fmt: skip


def _softmax(c: Lowering, node: Node) -> None:
    x, back = c.with_last(c.value(node.inputs[0]), node.attributes.get("axis", -1))
    name = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}[node.kind]
    y = c.new(x.shape, "float")
    c.step(Kernel(name, f"{name}.c"), y, x, y, x.count // x.shape[-1], x.shape[-1], in_place=(x,))
    c.set(node.outputs[0], back(y))


FLOAT_OPERATORS: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "ReduceL2": _euclidean_norm,
    "Softmax": _softmax,
    "Sum": _sum,
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(_FUNCTIONS, _unary),
    **dict.fromkeys(_PAIRS, _binary),
}
"""Operators on float32 by kind."""
ON_EITHER_TYPE = ("MaxPool", "ReduceMax")
"""Those that also work on uint8."""
