"""The layers of an ONNX file, for the drawing in report.html."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from slimsearch.compression import expand_integers, read_onnx
from slimsearch.errors import SlimsearchError

_MOST = 28
"""The most layers drawn one by one; larger networks are drawn as blocks."""

INPUT = -1
"""The position of the image among the inputs of a layer."""

# Larger tensors are removed before shape inference, which needs no weights.
_SMALL = 64
_UNCHANGED = {"QuantizeLinear", "DequantizeLinear", "Identity", "Cast", "Dropout"}
# Operators that neither compute nor have parameters.
_RESHAPING = {"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Slice"}
_FUSED = {
    "Relu": "ReLU", "LeakyRelu": "leaky ReLU", "PRelu": "PReLU", "Elu": "ELU", "Selu": "SELU", "Gelu": "GELU",
    "HardSwish": "h-swish", "Swish": "SiLU", "Sigmoid": "sigmoid", "HardSigmoid": "h-sigmoid", "Tanh": "tanh",
    "Softmax": "softmax", "Mish": "Mish", "Softplus": "softplus", "BatchNormalization": "batch norm", "Clip": "clip",
    "LayerNormalization": "layer norm", "InstanceNormalization": "instance norm", "GroupNormalization": "group norm",
}  # fmt: skip
_GATES = {"sigmoid": "SiLU", "h-sigmoid": "h-swish"}
_NORMS = {"BatchNormalization"}
_POOLS = {"MaxPool": "Max pool", "AveragePool": "Average pool", "LpPool": "Lp pool"}
_GLOBAL = {"GlobalAveragePool": "Global average pool", "GlobalMaxPool": "Global max pool", "ReduceMean": "Mean"}


@dataclass(frozen=True)
class Layer:
    """A layer with its fused operators, or several layers drawn as one block.

    Attributes:
        operator: such as "Conv 3×3".
        kind: "conv", "depthwise", "linear", "pool", "join", "block" or "other".
        shape: of the output without the batch dimension; empty if unknown.
        params: number of weights.
        int8: whether the file stores the weights as integers.
        inputs: positions of the input layers, or `INPUT`.
        fused: fused operators, such as "ReLU".
        stride: of a convolution or pooling.
        times: number of equal layers in sequence.
        inside: the layers of a block.
    """

    operator: str
    kind: str = "other"
    shape: tuple[int, ...] = ()
    params: int = 0
    int8: bool = False
    inputs: tuple[int, ...] = ()
    fused: tuple[str, ...] = ()
    stride: int = 1
    times: int = 1
    inside: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """``Conv 3×3 /2 + ReLU``"""
        return " + ".join((f"{self.operator} /{self.stride}" if self.stride > 1 else self.operator, *self.fused))


def read_layers(path: Path) -> list[Layer]:
    """The layers of an ONNX file in order; those of a large network as blocks.

    Activations, normalizations and biases belong to the layer before them; quantization and reshaping are left out.

    Raises:
        SlimsearchError: the file cannot be read, or its shapes are inconsistent.
    """
    import onnx

    model = onnx.load_model_from_string(read_onnx(path))
    expand_integers(model)
    try:
        return compact(_Reader(model).layers)
    except Exception as error:  # an invalid graph may raise anything
        raise SlimsearchError(f"'{path}' cannot be drawn: {type(error).__name__}") from error


@dataclass
class _Constant:
    dims: tuple[int, ...]
    weights: bool
    int8: bool
    counted: bool = field(default=False)

    def params(self) -> int:
        """The number of weights, counted once."""
        if not self.weights or self.counted or not self.dims:
            return 0
        self.counted = True
        size = 1
        for dim in self.dims:
            size *= dim
        return size


class _Reader:
    """Collects the `layers` of a model from its nodes."""

    def __init__(self, model: Any) -> None:
        import onnx

        graph, kinds = model.graph, onnx.TensorProto
        floats = {kinds.FLOAT, kinds.FLOAT16, kinds.DOUBLE, kinds.BFLOAT16}
        self._constants = {
            t.name: _Constant(tuple(t.dims), t.data_type in floats, t.data_type not in floats)
            for t in graph.initializer
        }
        self._shapes = _shapes(model)
        self._readers = Counter(name for node in graph.node for name in node.input)
        self._origin = {entry.name: (INPUT, entry.name) for entry in graph.input if entry.name not in self._constants}
        self.layers: list[Layer] = []
        for node in graph.node:
            self._read(node)

    def _read(self, node: Any) -> None:
        names = [name for name in node.input if name]
        data = [name for name in names if name not in self._constants]
        if not data or node.op_type in ("Shape", "Size", "Constant"):
            first = self._constants.get(names[0]) if names else None
            for name in node.output:
                self._constants[name] = first or _Constant((), False, False)
            if first is not None and node.op_type in ("DequantizeLinear", "Mul"):
                first.weights = True
            return
        origins = [self._origin[name] for name in data]
        if node.op_type in _UNCHANGED or node.op_type in _RESHAPING or self._fused(node, origins):
            for name in node.output:
                self._origin[name] = (origins[0][0], name)
            return
        self.layers.append(self._layer(node, names, [origin[0] for origin in origins]))
        for name in node.output:
            self._origin[name] = (len(self.layers) - 1, name)

    def _fused(self, node: Any, origins: list[tuple[int, str]]) -> bool:
        """Fuse a node with its input layer; False if that is not possible."""
        position = origins[0][0]
        if node.op_type == "Mul" and len(origins) == 2 and self._gated([origin[0] for origin in origins]):
            return True
        name = _FUSED.get(node.op_type)
        constant = name is None and node.op_type in ("Add", "Mul", "Sub", "Div") and len(origins) == 1
        if (name is None and not constant) or position == INPUT or self._readers[origins[0][1]] > 1:
            return False
        layer = self.layers[position]
        # The running mean and variance of a normalization are not parameters.
        numbers = [self._constants[n] for n in node.input if n in self._constants][
            : 2 if node.op_type in _NORMS else None
        ]
        params = sum(number.params() for number in numbers)
        fused = (*layer.fused, name) if name is not None else layer.fused
        self.layers[position] = replace(layer, params=layer.params + params, fused=fused, shape=self._shape(node))
        return True

    def _gated(self, factors: Sequence[int]) -> bool:
        """Fuse the product of a layer and its sigmoid (SiLU, h-swish); False for any other product."""
        for one, gate in (factors, reversed(factors)) if len(factors) == 2 else ():
            last = self.layers[-1] if self.layers else None
            if last is not None and gate == len(self.layers) - 1 and last.operator in _GATES and last.inputs == (one,):
                if one == INPUT:
                    return False
                self.layers.pop()
                self.layers[one] = replace(self.layers[one], fused=(*self.layers[one].fused, _GATES[last.operator]))
                return True
        return False

    def _layer(self, node: Any, names: list[str], inputs: list[int]) -> Layer:
        import onnx

        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        constants = [self._constants[name] for name in names if name in self._constants]
        kernel = "×".join(str(size) for size in attributes.get("kernel_shape", ()))
        operator, kind = _FUSED.get(node.op_type, node.op_type), "other"
        if node.op_type in ("Conv", "ConvTranspose"):
            operator, kind = _convolution(node.op_type, constants, kernel, int(attributes.get("group", 1)))
        elif node.op_type in ("Gemm", "MatMul") and constants:
            operator, kind = "Linear", "linear"
        elif node.op_type in _POOLS or node.op_type in _GLOBAL:
            operator, kind = f"{(_POOLS | _GLOBAL)[node.op_type]} {kernel}".strip(), "pool"
        elif len(inputs) > 1:
            kind = "join"
        shape = self._shape(node)
        return Layer(
            operator, kind, shape, sum(constant.params() for constant in constants),
            int8=any(constant.int8 and constant.weights for constant in constants),
            inputs=tuple(dict.fromkeys(inputs)), stride=max([1, *attributes.get("strides", ())]),
        )  # fmt: skip

    def _shape(self, node: Any) -> tuple[int, ...]:
        return self._shapes.get(node.output[0], ())


def _convolution(kind: str, constants: Sequence[_Constant], kernel: str, groups: int) -> tuple[str, str]:
    dims = constants[0].dims if constants else ()
    name = "Transposed conv" if kind == "ConvTranspose" else "Conv"
    if groups > 1 and len(dims) > 1 and dims[1] == 1:
        return f"Depthwise {name.lower()} {kernel}", "depthwise"
    return f"{name} {kernel}" + (f", {groups} groups" if groups > 1 else ""), "conv"


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every value in the graph, without the batch dimension."""
    import onnx

    light = onnx.ModelProto()
    light.CopyFrom(model)
    del light.graph.initializer[:]
    known = {entry.name for entry in light.graph.input}
    for tensor in model.graph.initializer:
        size = 1
        for dim in tensor.dims:
            size *= dim
        if size <= _SMALL:
            light.graph.initializer.append(tensor)
        elif tensor.name not in known:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    graph = onnx.shape_inference.infer_shapes(light).graph
    return {
        entry.name: tuple(int(dim.dim_value) for dim in entry.type.tensor_type.shape.dim[1:])
        for entry in (*graph.value_info, *graph.output)
    }


def compact(layers: Sequence[Layer], most: int = _MOST) -> list[Layer]:
    """Reduce a network to at most `most` rows.

    The layers between two bottlenecks become a block, equal neighbors become one row with their number, and the middle
    rows become a block if there are still too many.
    """
    if len(layers) <= most:
        return list(layers)
    rows: list[Layer] = []
    for begin, end in _segments(layers):
        rows.append(layers[begin] if end - begin == 1 else _block(layers[begin:end]))
    rows = [replace(row, inputs=(position - 1,)) for position, row in enumerate(rows)]
    for length in (1, 2, 3, 4):
        rows = _counted(rows, length)
    if len(rows) > most:
        half = most // 2
        rows = [*rows[:half], _block(rows[half : len(rows) - half + 1]), *rows[len(rows) - half + 1 :]]
    return [replace(row, inputs=(position - 1,)) for position, row in enumerate(rows)]


def _segments(layers: Sequence[Layer]) -> list[tuple[int, int]]:
    """The shortest ranges of layers with a single input and a single output."""
    reach, far = list(range(len(layers))), 0
    for position, layer in enumerate(layers):
        for read in layer.inputs:
            if read == INPUT:
                far = position
            else:
                reach[read] = position
    cuts = [0]
    for position in range(1, len(layers)):
        # Across the cut, only the output of layer `position - 1` is read.
        if far < position:
            cuts.append(position)
        far = max(far, reach[position - 1])
    return list(zip(cuts, [*cuts[1:], len(layers)], strict=True))


def _block(layers: Sequence[Layer]) -> Layer:
    names = Counter[str]()
    for layer in layers:
        for name in layer.inside or (layer.text,):
            count, times, text = name.rpartition(" × ")
            names[text] += layer.times * (int(count) if times and count.isdigit() else 1)
    inside = tuple(f"{count} × {name}" if count > 1 else name for name, count in names.items())
    params = sum(layer.params * layer.times for layer in layers)
    return Layer("Block", "block", layers[-1].shape, params, any(layer.int8 for layer in layers), inside=inside)


def _counted(rows: Sequence[Layer], length: int) -> list[Layer]:
    """Repeated sequences of `length` rows as one block with their number."""
    found: list[Layer] = []
    position = 0
    alike = [replace(row, inputs=()) for row in rows]
    while position < len(rows):
        unit = alike[position : position + length]
        times = 1
        while len(unit) == length and alike[position + times * length : position + (times + 1) * length] == unit:
            times += 1
        if times > 1:
            one = unit[0] if length == 1 else _block(unit)
            found.append(replace(one, times=one.times * times))
            position += times * length
        else:
            found.append(rows[position])
            position += 1
    return found
