"""Parallel linear branches of an ONNX file, merged into one convolution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class _Branch:
    """A convolution, or a BatchNorm as one with a kernel of one tap.

    Attributes:
        source: name of the input.
        weight: (outputs, inputs of a group, kernel...).
        bias: (outputs,).
        strides, dilations: of each dimension.
        begins, ends: padding before and behind the input in each dimension.
        group: number of groups.
    """

    source: str
    weight: Array
    bias: Array
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    group: int

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(self.weight.shape[2:])


def merge_branches(model: onnx.ModelProto) -> int:
    """Merge every sum of convolutions and BatchNorms that read the same input, in place; returns the number of sums.

    Exact but for rounding. Source: RepVGG (Ding et al. 2021), section 3.3, and MobileOne (Vasu et al. 2023), whose
    networks are trained with such branches.
    """
    merged = 0
    _drop_zeros(model.graph)
    sizes = _sizes(model)  # a merged convolution has the name and the size of its sum
    while _merge_one(model, sizes):
        merged += 1
    return merged


def _drop_zeros(graph: onnx.GraphProto) -> None:
    """Remove additions of the number 0, with which some networks begin their sums."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    zeros = {name for name, tensor in tensors.items() if not tensor.dims and not numpy_helper.to_array(tensor)}
    results = {value.name for value in graph.output}
    for node in [node for node in graph.node if node.op_type == "Add" and node.output[0] not in results]:
        rest = [name for name in node.input if name not in zeros]
        if len(rest) == 1:
            for reader in graph.node:
                reader.input[:] = [rest[0] if name == node.output[0] else name for name in reader.input]
            graph.node.remove(node)


def _merge_one(model: onnx.ModelProto, sizes: Mapping[str, tuple[int | None, ...]]) -> bool:
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    uses = Counter([name for node in graph.node for name in node.input] + [value.name for value in graph.output])
    for position, node in enumerate(graph.node):
        if node.op_type != "Add" or any(uses[name] != 1 or name not in producers for name in node.input):
            continue
        first, second = (_branch(producers[name], constants, sizes) for name in node.input)
        spatial = [sizes.get(name, ())[2:] for name in node.input]
        if first is None or second is None or not spatial[0] or spatial[0] != spatial[1] or None in spatial[0]:
            continue
        both = _sum(first, second)
        if both is None:
            continue
        names = [f"{node.output[0]}.{label}" for label in ("weight", "bias")]
        convolution = onnx.helper.make_node(
            "Conv", [both.source, *names], list(node.output), name=node.name or node.output[0], group=both.group,
            kernel_shape=both.kernel, strides=both.strides, dilations=both.dilations, pads=(*both.begins, *both.ends),
        )  # fmt: skip
        gone = [producers[name] for name in node.input]
        graph.node.insert(position, convolution)
        for old in (*gone, node):
            graph.node.remove(old)
        for name, value in zip(names, (both.weight, both.bias), strict=True):
            graph.initializer.append(numpy_helper.from_array(value.astype("float32"), name))
        read = {name for other in graph.node for name in other.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        return True
    return False


def _sizes(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """The known shapes of all tensors; None for a dimension that is free."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
    }


def _branch(node: onnx.NodeProto, constants: Any, sizes: Any) -> _Branch | None:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    if any(name not in constants or constants[name].data_type != TensorProto.FLOAT for name in node.input[1:]):
        return None
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    values = [numpy_helper.to_array(constants[name]).astype(np.float64) for name in node.input[1:]]
    if node.op_type == "Conv" and attributes.get("auto_pad", b"NOTSET") == b"NOTSET":
        weight = values[0]
        ones, count = (1,) * (weight.ndim - 2), weight.ndim - 2
        pads = tuple(attributes.get("pads", (0,) * 2 * count))
        return _Branch(
            node.input[0], weight, values[1] if len(values) > 1 else np.zeros(len(weight)),
            tuple(attributes.get("strides", ones)), tuple(attributes.get("dilations", ones)), pads[:count],
            pads[count:], attributes.get("group", 1),
        )  # fmt: skip
    if node.op_type == "BatchNormalization" and len(sizes.get(node.output[0], ())) > 2:
        scale, shift, mean, variance = values
        gain = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
        ones = (1,) * (len(sizes[node.output[0]]) - 2)
        zeros = (0,) * len(ones)
        weight = gain.reshape(-1, 1, *ones)
        return _Branch(node.input[0], weight, shift - mean * gain, ones, ones, zeros, zeros, len(gain))
    return None


def _sum(one: _Branch, other: _Branch) -> _Branch | None:
    """The branch with the sum of both outputs, which have equal sizes; None if it is no convolution."""
    if one.source != other.source or one.weight.ndim != other.weight.ndim or len(one.weight) != len(other.weight):
        return None
    small, large = sorted((one, other), key=lambda branch: branch.weight[0, 0].size)
    if small.group != large.group:
        if large.group == len(large.weight) and large.weight[0, 0].size == 1:
            small, large = large, small
        small = _in_groups(small, large.group)
    if max(small.kernel) == 1:
        small = replace(small, dilations=large.dilations)
    same = (small.strides, small.dilations, small.group) == (large.strides, large.dilations, large.group)
    if not same or small.weight.shape[1] != large.weight.shape[1]:
        return None
    places = [slice(None), slice(None)]
    for begin, own, step, width, room in zip(
        large.begins, small.begins, large.dilations, small.kernel, large.kernel, strict=True
    ):
        first, rest = divmod(begin - own, step)
        if rest or first < 0 or first + width > room:
            return None
        places.append(slice(first, first + width))
    weight = large.weight.copy()
    weight[tuple(places)] += small.weight
    return replace(large, weight=weight, bias=large.bias + small.bias)


def _in_groups(branch: _Branch, group: int) -> _Branch:
    """A branch that scales each channel alone, in fewer groups; other branches stay as they are."""
    import numpy as np

    outputs = len(branch.weight)
    if branch.group != outputs or branch.weight[0].size != 1 or outputs % group:
        return branch
    width = outputs // group
    weight = np.zeros((outputs, width, *branch.kernel))
    weight[np.arange(outputs), np.arange(outputs) % width] = branch.weight[:, 0]
    return replace(branch, weight=weight, group=group)
