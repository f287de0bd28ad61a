"""BatchNorm of an ONNX file, folded into the operator before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx


def fold_norms(model: onnx.ModelProto) -> int:
    """Fold BatchNorms into the weights of the operators before them, in place; returns their number.

    Such an operator is a convolution or matrix product with constant weights whose output nothing else reads.
    Exporters themselves only fold what follows a convolution that is not transposed. Exact but for rounding.
    """
    import onnx

    graph = model.graph
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    if not norms:
        return 0
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    weights = {tensor.name: tensor for tensor in graph.initializer}
    # Without scale and shift of its own, a BatchNorm has these as Constant nodes.
    others = {
        node.output[0]: node.attribute[0].t
        for node in graph.node
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value"
    }
    producers = {output: node for node in graph.node for output in node.output}
    uses = Counter([name for node in graph.node for name in node.input] + [value.name for value in graph.output])
    folded = 0
    for norm in norms:
        before = producers.get(norm.input[0])
        given = [weights.get(name, others.get(name)) for name in norm.input[1:]]
        if before is not None and uses[norm.input[0]] == 1 and _fold(norm, given, before, ranks, weights, uses):
            before.output[0] = norm.output[0]
            producers[norm.output[0]] = before
            graph.node.remove(norm)
            folded += 1
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for node in [node for node in graph.node if node.output[0] in others and node.output[0] not in read]:
        graph.node.remove(node)
    remaining = [tensor for name, tensor in weights.items() if name in read]
    del graph.initializer[:]
    graph.initializer.extend(remaining)
    return folded


def _fold(
    norm: onnx.NodeProto, given: Sequence[Any], before: onnx.NodeProto, ranks: Mapping[str, int],
    weights: dict[str, Any], uses: Mapping[str, int],
) -> bool:  # fmt: skip
    """Multiply the weights of `before` and shift its bias as `norm` does, if it has such weights.

    Args:
        norm, given: the BatchNorm, and its scale, shift, mean and variance.
        before: the operator that writes what `norm` reads.
        ranks: numbers of dimensions by tensor.
        weights: initializers by name; those of `before` are replaced.
        uses: number of readers by tensor.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    own = [weights.get(name) for name in before.input[1:]]
    if not own or any(tensor is None or tensor.data_type != TensorProto.FLOAT for tensor in (*own, *given)):
        return False
    axis = _channel_axis(before, ranks.get(norm.input[0], 0))
    if axis is None or any(uses[name] != 1 for name in before.input[1:]):
        return False
    weight, *biases = (numpy_helper.to_array(tensor).astype(np.float64) for tensor in own)
    scale, shift, mean, variance = (numpy_helper.to_array(tensor).astype(np.float64) for tensor in given)
    if weight.shape[axis] != len(scale) or any(bias.shape != scale.shape for bias in biases):
        return False
    epsilon = next((one.f for one in norm.attribute if one.name == "epsilon"), 1e-5)
    gain = scale / np.sqrt(variance + epsilon)
    shape = [1] * weight.ndim
    shape[axis] = -1
    bias = ((biases[0] if biases else 0.0) - mean) * gain + shift
    names = [before.input[1], before.input[2] if biases else f"{norm.output[0]}.bias"]
    for name, values in zip(names, (weight * gain.reshape(shape), bias), strict=True):
        weights[name] = numpy_helper.from_array(values.astype(np.float32), name)
    if before.op_type == "MatMul":
        before.CopyFrom(helper.make_node("Gemm", before.input, before.output, name=before.name))
    before.input[:] = [before.input[0], *names]
    return True


def _channel_axis(node: onnx.NodeProto, rank: int) -> int | None:
    """The axis of the weight of `node` with its output channels; None if dimension 1 of its output has no channels."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose" and ("group" not in attributes or attributes["group"].i == 1):
        return 1
    if node.op_type == "MatMul" and rank == 2:
        return 1
    if node.op_type == "Gemm" and all(attributes[name].f == 1 for name in ("alpha", "beta") if name in attributes):
        return 0 if "transB" in attributes and attributes["transB"].i else 1
    return None
