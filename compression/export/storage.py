"""Compact storage of weights in ONNX files, which the runtime converts to float32 on loading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from slimsearch.compression.export.bit_packing import pack_integers
from slimsearch.compression.quantization.plan import CODEBOOK, WEIGHTS_FP16, WEIGHTS_INT8, LearnedRange

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, np.dtype[Any]]
    Stored = tuple[list[onnx.TensorProto], list[onnx.NodeProto]]

_LARGEST_CODEBOOK = 256


def store(
    model: onnx.ModelProto,
    form: str,
    learned: Mapping[str, LearnedRange] | None = None,
    chosen: Callable[[str], bool] = lambda layer: True,
) -> onnx.ModelProto:
    """A copy of the float32 `model` with weights stored in `form`, and with operators that restore them.

    ONNX Runtime evaluates Cast, Mul and Gather on constants once, on loading, and then runs the original model. It does
    not do so for DequantizeLinear, which would cost time in each run.

    A weight is a float32 initializer of two or more dimensions. It stays unchanged if the file would not become
    smaller, if float16 cannot represent its values, or if it has more distinct values than a codebook.

    Args:
        model: in float32, or with some layers in int8.
        form: ``WEIGHTS_INT8``, ``WEIGHTS_FP16`` or ``CODEBOOK``.
        learned: grids of the int8 form by layer name, of weights that are on them; they are stored in their bits.
        chosen: whether the weight of a layer of this name is stored in the form; others stay in float32.
    """
    import onnx
    from onnx import numpy_helper

    forms: dict[str, Callable[[str, str, Array, int], Stored | None]] = {
        WEIGHTS_INT8: _int8, WEIGHTS_FP16: _fp16, CODEBOOK: _codebook,
    }  # fmt: skip
    grids, bits = learned or {}, dict[str, int]()
    stored = onnx.ModelProto()
    stored.CopyFrom(model)
    graph = stored.graph
    tensors: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    for number, tensor in enumerate(model.graph.initializer):
        replacement = None
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            axis = _channel_axis(model.graph, tensor.name)
            layer, values = tensor.name.removesuffix(".weight"), numpy_helper.to_array(tensor)
            grid = grids.get(layer)
            if not chosen(layer):
                replacement = None
            elif grid is not None:
                replacement = _on_grid(tensor.name, f"{number}:", values, axis, grid)
                bits[f"{number}:i"] = grid.weight_bits
            else:
                replacement = forms[form](tensor.name, f"{number}:", values, axis)
        size = sum(one.ByteSize() for messages in replacement or () for one in messages)
        if replacement is None or size >= tensor.ByteSize():
            tensors.append(tensor)
        else:
            tensors += replacement[0]
            nodes += replacement[1]
    nodes += model.graph.node
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(tensors)
    graph.node.extend(nodes)
    pack_integers(stored, bits)
    return stored


def _int8(name: str, prefix: str, weight: Array, axis: int) -> Stored:
    """Integers from -127 to 127, with one scale per channel along `axis`."""
    import numpy as np

    others = tuple(i for i in range(weight.ndim) if i != axis)
    return _multiples(name, prefix, weight, (np.abs(weight).max(axis=others, keepdims=True) / 127).astype(np.float32))


def _on_grid(name: str, prefix: str, weight: Array, axis: int, grid: LearnedRange) -> Stored:
    """The integers of a weight on its grid."""
    import numpy as np

    scales = np.array(grid.weight_scales, np.float32)
    return _multiples(name, prefix, weight, scales.reshape([-1 if i == axis else 1 for i in range(weight.ndim)]))


def _multiples(name: str, prefix: str, weight: Array, scales: Array) -> Stored:
    """Int8 multiples of scales, which have as many dimensions as the weight."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    multiples = np.round(weight / np.where(scales > 0, scales, 1)).astype(np.int8)
    tensors = [numpy_helper.from_array(multiples, f"{prefix}i"), numpy_helper.from_array(scales, f"{prefix}s")]
    nodes = [
        helper.make_node("Cast", [f"{prefix}i"], [f"{prefix}f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [f"{prefix}f", f"{prefix}s"], [name]),
    ]
    return tensors, nodes


def _fp16(name: str, prefix: str, weight: Array, axis: int) -> Stored | None:
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    if np.abs(weight).max(initial=0) > np.finfo(np.float16).max:
        return None
    halves = numpy_helper.from_array(weight.astype(np.float16), f"{prefix}h")
    return [halves], [helper.make_node("Cast", [f"{prefix}h"], [name], to=onnx.TensorProto.FLOAT)]


def _codebook(name: str, prefix: str, weight: Array, axis: int) -> Stored | None:
    """The distinct values, and the index of each weight's value."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    values, indices = np.unique(weight, return_inverse=True)
    if len(values) > _LARGEST_CODEBOOK:
        return None
    bytes_ = indices.reshape(weight.shape).astype(np.uint8)
    tensors = [numpy_helper.from_array(bytes_, f"{prefix}i"), numpy_helper.from_array(values, f"{prefix}c")]
    nodes = [
        helper.make_node("Cast", [f"{prefix}i"], [f"{prefix}l"], to=onnx.TensorProto.INT32),
        helper.make_node("Gather", [f"{prefix}c", f"{prefix}l"], [name]),
    ]
    return tensors, nodes


def _channel_axis(graph: onnx.GraphProto, name: str) -> int:
    """The axis of a weight that holds its operator's output channels."""
    for node in graph.node:
        if name in node.input[1:]:
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            if node.op_type == "MatMul" or (node.op_type == "Gemm" and not transposed):
                return len(next(t for t in graph.initializer if t.name == name).dims) - 1
            return 1 if node.op_type == "ConvTranspose" else 0
    return 0
