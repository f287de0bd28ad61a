"""The graph of an ONNX file as ONNX Runtime executes it, for one example."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression.export.bit_packing import expand_integers
from slimsearch.compression.export.int8 import split_sums
from slimsearch.compression.export.untrusted import read_onnx, session_options
from slimsearch.errors import SlimsearchError, first_line

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, np.dtype[Any]]

# Fusions that the generator does not know, or that change stored weights.
_DISABLED = [
    "AttentionFusion", "BiasDropoutFusion", "BiasGeluFusion", "BiasSoftmaxFusion", "ConvActivationFusion",
    "ConvAddActivationFusion", "ConvAddFusion", "ConvBNFusion", "ConvMulFusion", "EmbedLayerNormFusion",
    "FastGeluFusion", "GemmActivationFusion", "MatMulActivationFusion", "MatMulScaleFusion", "MatmulTransposeFusion",
    "QuickGeluFusion", "SkipLayerNormFusion",
]  # fmt: skip
_TABLE_FUNCTIONS = (
    "Abs", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg",
    "QLinearLeakyRelu", "QLinearSigmoid", "Relu", "Sigmoid", "Softplus", "Sqrt", "Tanh",
)  # fmt: skip
_BY_CHANNEL = ("Add", "Sub", "Mul", "Div")
LOOK_UP = "LookUp"
"""The operator of a table over all values of a uint8 tensor."""


@dataclass
class Node:
    """An operator.

    Attributes:
        kind: such as ``Conv``.
        inputs, outputs: names of values; "" is an absent input.
        attributes: by name.
        limits: smallest and largest result, of a convolution or product that is followed by a ReLU or a clipping.
        nodes: of a look-up table: the ONNX operators that it stands for.
        channels: of a look-up table: how many different ones there are, for the channels.
    """

    kind: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)
    limits: tuple[float, float] | None = None
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    channels: int = 1


@dataclass(frozen=True)
class StoredWeight:
    """A weight as the file stores it.

    Attributes:
        values: int8 multiples, float16 numbers, or uint8 indices.
        scales: of int8 multiples, with as many dimensions as the weight.
        table: of indices.
    """

    values: Array
    scales: Array | None = None
    table: Array | None = None


@dataclass
class Graph:
    """Operators in the order of their execution.

    Attributes:
        nodes: the operators.
        constants: by name.
        stored: how the file stores some of the constants, by name.
        input, output: names.
        input_shape: with a batch of one.
        pixels: whether the input is uint8; otherwise float32.
        metadata: of the file.
        opsets: of the operators.
    """

    nodes: list[Node]
    constants: dict[str, Array]
    stored: dict[str, StoredWeight]
    input: str
    input_shape: tuple[int, ...]
    pixels: bool
    output: str
    metadata: dict[str, str]
    opsets: Sequence[onnx.OperatorSetIdProto]

    def table(self, node: Node) -> Array:
        """The (channels, 256) uint8 results of a look-up table's operators, as ONNX Runtime computes them."""
        import numpy as np
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper

        read = {name for proto in node.nodes for name in proto.input}
        constants = [numpy_helper.from_array(self.constants[name], name) for name in read if name in self.constants]
        ends = [
            helper.make_tensor_value_info(name, TensorProto.UINT8, [1, node.channels, 256, 1])
            for name in (node.inputs[0], node.outputs[0])
        ]
        graph = helper.make_graph(node.nodes, "table", ends[:1], ends[1:], constants)
        model = helper.make_model(graph, opset_imports=self.opsets, ir_version=8)
        options = session_options(1)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        every = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1).repeat(node.channels, axis=1)
        found: Array = session.run(None, {node.inputs[0]: every})[0].reshape(node.channels, 256)
        return found


def read_graph(path: Path) -> Graph:
    """The graph of an ONNX file with one input and one output, for a batch of one.

    ONNX Runtime folds constants and joins operators on integers, so that the graph has the operators that it runs.

    Raises:
        SlimsearchError: the file cannot be read, has several inputs or outputs, or its input has another type.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_model_from_string(read_onnx(path))
    expand_integers(model)
    stored = _take_stored(model.graph)
    model = _optimized(model, path)
    graph = model.graph
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise SlimsearchError(
            f"a C file has one input and one output; '{path}' has {len(graph.input)} and {len(graph.output)}"
        )
    shape = tuple(int(dimension.dim_value) for dimension in graph.input[0].type.tensor_type.shape.dim)
    if not shape or 0 in shape:
        raise SlimsearchError(f"a C file needs a fixed size of its input; '{path}' leaves one free")
    kind = graph.input[0].type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.UINT8):
        raise SlimsearchError(f"a C file takes float32 or uint8; '{path}' takes {TensorProto.DataType.Name(kind)}")
    pixels = graph.input[0].name if kind == TensorProto.UINT8 else None
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    protos = []
    for proto in graph.node:
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in proto.attribute}
        if proto.op_type == "Constant" and "value" in attributes:
            constants[proto.output[0]] = numpy_helper.to_array(attributes["value"])
        elif proto.op_type == "DequantizeLinear" and proto.input[0] in constants:
            name, weight = proto.output[0], _dequantized(*(constants[name] for name in proto.input), **attributes)
            constants[name], multiples = weight
            if multiples is not None:
                stored[name] = multiples
        else:
            protos.append(proto)
    operators = [
        (proto, {entry.name: helper.get_attribute_value(entry) for entry in proto.attribute})
        for proto in split_sums(protos, constants)
    ]
    output = graph.output[0].name
    nodes = _needed(_with_limits(_with_tables(operators, constants, pixels), constants, output), output)
    return Graph(
        nodes, constants, stored, graph.input[0].name, shape, pixels is not None, output,
        {entry.key: entry.value for entry in model.metadata_props}, list(model.opset_import),
    )  # fmt: skip


def _optimized(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    import onnx
    import onnxruntime

    options = session_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    for dimension in model.graph.input[0].type.tensor_type.shape.dim[:1]:
        if dimension.dim_param:
            options.add_free_dimension_override_by_name(dimension.dim_param, 1)
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=_DISABLED
            )
        except Exception as error:  # ONNX Runtime raises many kinds
            raise SlimsearchError(f"ONNX Runtime cannot load '{path}': {first_line(error)}") from error
        return onnx.load(options.optimized_model_filepath)


def _take_stored(graph: onnx.GraphProto) -> dict[str, StoredWeight]:
    """Replace what expands stored weights (see `store`) by their float32 values, in place; returns them by name."""
    import numpy as np
    from onnx import numpy_helper

    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    found: dict[str, StoredWeight] = {}
    values: dict[str, Array] = {}

    def cast_of(name: str) -> Array | None:
        maker = makers.get(name)
        return tensors.get(maker.input[0]) if maker is not None and maker.op_type == "Cast" else None

    for node in graph.node:
        name = node.output[0]
        first = cast_of(name)
        if first is not None and first.dtype == np.float16:
            found[name], values[name] = StoredWeight(first), first.astype(np.float32)
        elif node.op_type == "Mul" and node.input[1] in tensors and (first := cast_of(node.input[0])) is not None:
            scales = tensors[node.input[1]]
            if first.dtype == np.int8 and scales.ndim == first.ndim:
                found[name], values[name] = StoredWeight(first, scales=scales), first.astype(np.float32) * scales
        elif node.op_type == "Gather" and node.input[0] in tensors and (first := cast_of(node.input[1])) is not None:
            table = tensors[node.input[0]]
            if first.dtype == np.uint8 and table.ndim == 1:
                found[name], values[name] = StoredWeight(first, table=table), table[first]
    rest = [node for node in graph.node if node.output[0] not in found]
    del graph.node[:]
    graph.node.extend(rest)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    return found


def _dequantized(
    values: Array, scale: Array, zero: Array | None = None, axis: int = 1, **others: Any
) -> tuple[Array, StoredWeight | None]:
    """The float32 numbers of a constant, and how it is stored, if as int8 multiples."""
    import numpy as np

    def along(array: Array) -> Array:
        return (
            array.reshape([-1 if i == axis % values.ndim else 1 for i in range(values.ndim)]) if array.ndim else array
        )

    numbers = values.astype(np.int32) - (0 if zero is None else along(zero).astype(np.int32))
    multiples = values.dtype == np.int8 and (zero is None or not zero.any())
    scales = np.reshape(along(scale), (1,) * (values.ndim - along(scale).ndim) + along(scale).shape)
    return numbers.astype(np.float32) * scales, StoredWeight(values, scales) if multiples else None


def _with_tables(
    protos: Sequence[tuple[onnx.NodeProto, dict[str, Any]]], constants: Mapping[str, Array], pixels: str | None
) -> list[Node]:
    """The operators, with look-up tables in place of elementwise functions from uint8 to uint8.

    `pixels` is the name of an input of uint8, whose channels have tables of their own.
    """
    makers = {name: proto for proto, _ in protos for name in proto.output}
    found = []

    def are_pixels(name: str) -> bool:
        maker = makers.get(name)
        return name == pixels or (maker is not None and maker.op_type == "Transpose" and are_pixels(maker.input[0]))

    for proto, attributes in protos:
        node = Node(proto.op_type, list(proto.input), list(proto.output), attributes)
        chain = [proto]
        while chain[0].op_type in ("QuantizeLinear", *_BY_CHANNEL, *_TABLE_FUNCTIONS):
            maker = makers.get(chain[0].input[0])
            if maker is None or maker.op_type not in ("DequantizeLinear", "Cast", *_BY_CHANNEL, *_TABLE_FUNCTIONS):
                break
            if maker.op_type in ("QLinearSigmoid", "QLinearLeakyRelu"):
                break
            chain.insert(0, maker)
        first = chain[0]
        whole = proto.op_type == "QuantizeLinear" and (
            first.op_type == "DequantizeLinear" or (first.op_type == "Cast" and are_pixels(first.input[0]))
        )
        if whole or proto.op_type in ("QLinearSigmoid", "QLinearLeakyRelu"):
            chain = chain if whole else [proto]
            channels = [_channels(constants.get(name)) for name in _parameters(chain)]
            most = max(channels, default=1)
            if all(channels) and (most == 1 or first.op_type == "Cast"):
                node = Node(LOOK_UP, [chain[0].input[0]], list(proto.output), nodes=chain, channels=most)
        found.append(node)
    return found


def _parameters(chain: Sequence[onnx.NodeProto]) -> list[str]:
    return [name for proto in chain for name in proto.input[1:] if name]


def _channels(parameter: Array | None) -> int:
    """1 for a number, the number of channels for one of each, and otherwise 0."""
    if parameter is None:
        return 0
    by_channel = parameter.ndim == 4 and parameter.size == parameter.shape[1]
    return 1 if parameter.size == 1 else parameter.size if by_channel else 0


def _with_limits(nodes: list[Node], constants: Mapping[str, Array], output: str) -> list[Node]:
    """The operators, with ReLUs and clippings as limits of the convolution or product before them."""
    import math

    readers = Counter(name for node in nodes for name in node.inputs)
    makers = {name: node for node in nodes for name in node.outputs}
    found = []
    for node in nodes:
        maker = makers.get(node.inputs[0]) if node.inputs else None
        limits: tuple[float, float] | None = None
        if node.kind == "Relu":
            limits = (0.0, math.inf)
        elif node.kind == "Clip" and all(name in constants for name in node.inputs[1:] if name):
            limits = clip_limits(node, constants)
        joined = maker is not None and maker.kind in ("Conv", "Gemm", "MatMul") and maker.limits is None
        if limits and maker is not None and joined and readers[node.inputs[0]] == 1 and node.inputs[0] != output:
            maker.limits, maker.outputs = limits, node.outputs
            makers[node.outputs[0]] = maker
        else:
            found.append(node)
    return found


def clip_limits(node: Node, constants: Mapping[str, Array]) -> tuple[float, float]:
    """Smallest and largest result of a Clip with constant limits."""
    import math

    bounds = [*node.inputs[1:], "", ""][:2]
    low, high = (constants[name].item() if name else None for name in bounds)
    return -math.inf if low is None else low, math.inf if high is None else high


def _needed(nodes: list[Node], output: str) -> list[Node]:
    """The operators on which the output depends."""
    wanted, found = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            found.append(node)
    return found[::-1]
