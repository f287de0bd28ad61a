"""Static quantization of an ONNX file: int8 weights and uint8 activations, as QDQ operators."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression.export.bit_packing import pack_integers
from slimsearch.compression.export.entropy import entropy_ranges
from slimsearch.compression.export.storage import store
from slimsearch.compression.quantization.plan import WEIGHTS_INT8, LearnedRange, Quantization
from slimsearch.errors import SlimsearchError
from slimsearch.packed import feeder

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from torch import Tensor

_MOVES = ("Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def to_int8(file: Path, folder: Path, images: Tensor, plan: Quantization) -> Path:
    """Write the quantized file into `folder`, with activation ranges from `images`, (N, C, H, W) float32."""
    import numpy as np
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.quant_utils import TENSOR_NAME_QUANT_SUFFIX
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, quantized = folder / "prepared.onnx", folder / "int8.onnx"
    quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
    model = onnx.load(str(prepared))
    nodes = split_sums(model.graph.node, {tensor.name for tensor in model.graph.initializer})
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(prepared))

    feed = feeder_of(model.graph)

    def batches() -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        return (feed(images.numpy()[start : start + 64]) for start in range(0, len(images), 64))

    left = batches()

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            return next(left, None)

    overrides = _overrides(prepared, plan.learned)
    if plan.calibration == "entropy":
        for name, (low, high) in entropy_ranges(prepared, batches()).items():
            overrides.setdefault(name, [{"rmin": np.float32(low), "rmax": np.float32(high)}])
    methods = {"percentile": CalibrationMethod.Percentile}
    quantize_static(
        str(prepared),
        str(quantized),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=plan.per_channel,
        reduce_range=plan.target == "any",
        calibrate_method=methods.get(plan.calibration, CalibrationMethod.MinMax),
        extra_options={"TensorQuantOverrides": overrides} if overrides else {},
        nodes_to_exclude=[*_with_followers(prepared, plan.keep_float), *_not_quantizable(prepared)],
    )
    if plan.fewer_bits or plan.bits:
        model = onnx.load(str(quantized))
        bits = {f"{name}.weight{TENSOR_NAME_QUANT_SUFFIX}": known.weight_bits for name, known in plan.learned.items()}
        pack_integers(model, bits)
        onnx.save(store(model, WEIGHTS_INT8, plan.learned, plan.bits.__contains__), str(quantized))
    return quantized


def split_sums(nodes: Iterable[onnx.NodeProto], constants: Container[str]) -> list[onnx.NodeProto]:
    """Nodes of which no Gemm adds a computed value, which is not a bias.

    ONNX Runtime joins a product and a sum to such a Gemm, and then has no integer arithmetic for it.
    """
    from onnx import helper

    found = []
    for node in nodes:
        attributes = {attribute.name: attribute.f for attribute in node.attribute}
        computed = node.op_type == "Gemm" and len(node.input) > 2 and node.input[2] and node.input[2] not in constants
        if computed and attributes.get("beta", 1.0) == 1:
            product = f"{node.output[0]}.product"
            found.append(helper.make_node("Gemm", node.input[:2], [product], name=node.name))
            found[-1].attribute.extend(node.attribute)
            found.append(helper.make_node("Add", [product, node.input[2]], node.output, name=f"{node.name}.sum"))
        else:
            found.append(node)
    return found


def feeder_of(graph: onnx.GraphProto) -> Callable[[Any], dict[str, Any]]:
    """A function from packed values, an array, to the inputs of a graph; see `slimsearch.packed`."""
    return feeder(
        [(value.name, [size.dim_value for size in value.type.tensor_type.shape.dim]) for value in graph.input]
    )


def _float_nodes(graph: onnx.GraphProto, which: str) -> list[str]:
    """Names of the nodes that stay in float32.

    Raises:
        SlimsearchError: the file has no node for a layer in `which`.
    """
    if which == "none":
        return []
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    layers = _weighted(graph)
    if which in ("first", "last", "ends"):
        return [n.name for n in (*(layers[:1] if which != "last" else ()), *(layers[-1:] if which != "first" else ()))]
    if which == "depthwise":
        return [
            n.name for n in layers if any(a.name == "group" and a.i == shapes[n.input[1]][0] > 1 for a in n.attribute)
        ]
    wanted, found = which.split(), weighted_layers(graph)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise SlimsearchError(f"layer '{missing[0]}' cannot stay in float32: the file has no layer of that name")
    return [found[name] for name in wanted]


def _with_followers(prepared: Path, which: str) -> list[str]:
    """Names of the nodes that stay in float32, and of those without weights that read results of these nodes alone."""
    import onnx

    graph = onnx.load(str(prepared)).graph
    chosen = _float_nodes(graph, which)
    weighted, constants = [n.name for n in _weighted(graph)], {tensor.name for tensor in graph.initializer}
    produced: set[str] = set()
    found = []
    for node in graph.node:
        read = [name for name in node.input if name and name not in constants]
        if node.name in chosen or (node.name not in weighted and read and produced.issuperset(read)):
            found.append(node.name)
            produced.update(node.output)
    return found


def float_layers(graph: onnx.GraphProto, which: str) -> list[str]:
    """The names of the layers that `which` keeps in float32, see `Quantization.keep_float`."""
    nodes = _float_nodes(graph, which)
    return [name for name, node in weighted_layers(graph).items() if node in nodes]


def weighted_layers(graph: onnx.GraphProto) -> dict[str, str]:
    """The names of the nodes with weights of a layer, by the layer's name, in the order of the file."""
    return {n.input[1].removesuffix(".weight"): n.name for n in _weighted(graph) if n.input[1].endswith(".weight")}


def _weighted(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    constants = {tensor.name for tensor in graph.initializer}
    return [n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul") and n.input[1] in constants]


def _not_quantizable(prepared: Path) -> list[str]:
    """Names of the nodes that ONNX Runtime cannot quantize: norms over several dimensions, because of their scales,
    and transposed convolutions in groups, because of their biases.
    """
    import onnx

    graph = onnx.load(str(prepared)).graph
    dimensions = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    return [
        n.name
        for n in graph.node
        if (n.op_type == "LayerNormalization" and dimensions.get(n.input[1]) != 1)
        or (n.op_type == "ConvTranspose" and any(a.name == "group" and a.i > 1 for a in n.attribute))
    ]


def _overrides(prepared: Path, learned: Mapping[str, LearnedRange]) -> dict[str, list[dict[str, Any]]]:
    """ONNX Runtime's overrides: scale and zero point of every learned weight, and of its layer's input if learned.

    Layers are found by the names of their weights; a matrix that the exporter has transposed has its channels on the
    other axis.
    """
    import numpy as np
    import onnx
    from onnxruntime.quantization import QuantType

    graph = onnx.load(str(prepared)).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    found: dict[str, list[dict[str, Any]]] = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        weight = node.input[1]
        known = learned.get(weight.removesuffix(".weight"))
        if known is None or weight not in shapes:
            continue
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        axis = 0 if node.op_type == "Conv" or transposed else len(shapes[weight]) - 1
        count = shapes[weight][axis]
        scales = known.weight_scales if len(known.weight_scales) == count else known.weight_scales * count
        rows = [
            {"scale": np.array(scale, dtype=np.float32), "zero_point": np.array(0, dtype=np.int8)} for scale in scales
        ]
        rows[0] = {**rows[0], "axis": axis, "quant_type": QuantType.QInt8}
        found[weight] = rows
        if known.input_scale is None:
            continue
        scale = np.array(known.input_scale, dtype=np.float32)
        zero_point = np.array(known.input_zero_point, dtype=np.uint8)
        tensor = node.input[0]
        found.setdefault(tensor, [{"scale": scale, "zero_point": zero_point}])
        # ONNX Runtime gives outputs of operators that only move values the range of the input, despite overrides.
        while (producer := producers.get(tensor)) is not None and producer.op_type in _MOVES:
            tensor = producer.input[0]
            found.setdefault(tensor, [{"scale": scale, "zero_point": zero_point}])
    return found
