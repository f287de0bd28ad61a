"""Preprocessing inside an ONNX file: pixels as bytes in, normalized by the file; probabilities and class names out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, np.dtype[Any]]

# Distance from the middle between two integers, within which a runtime may round either way.
_BETWEEN = 1e-3


def embed_preprocessing(
    model: onnx.ModelProto, mean: Sequence[float], std: Sequence[float], layout: str, classes: Sequence[str] = ()
) -> onnx.ModelProto:
    """A copy of a file of `export_onnx` that takes pixels, uint8 in `layout`, and computes (pixel / 255 - mean) / std.

    The first operator takes over what it can, if no other one reads the images: a float32 convolution the deviation,
    and without padding the mean, too; the scale of a quantized input the deviation, if all 256 values of a byte are
    quantized as before.

    Args:
        model: with one input (N, C, H, W) float32.
        mean, std: of each channel.
        layout: order of the dimensions of the pixels, "nchw" or "nhwc".
        classes: of a classifier, whose outputs become ``probabilities``, the softmax of its logits, and ``label``, the
            name of the most probable class; empty: the output stays as it is.

    Raises:
        SlimsearchError: the file has several inputs or outputs, or does not take images.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    dimensions = graph.input[0].type.tensor_type.shape.dim
    if len(graph.input) != 1 or len(graph.output) != 1 or len(dimensions) != 4 or dimensions[1].dim_value != len(mean):
        raise SlimsearchError("only a file with one input of images and one output can normalize pixels")
    batch, channels, height, width = dimensions[0].dim_param or "batch", *(d.dim_value for d in dimensions[1:])
    added = _Added(graph, np.asarray(mean, np.float32), np.asarray(std, np.float32))
    added.normalisation()
    if layout == "nhwc":
        added.in_front("Transpose", perm=[0, 3, 1, 2])
    added.name_input("pixels")
    nodes = [*added.nodes(), *graph.node, *(_labels(graph, classes) if classes else ())]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    shape = [batch, channels, height, width] if layout == "nchw" else [batch, height, width, channels]
    graph.input.append(helper.make_tensor_value_info(added.first, TensorProto.UINT8, shape))
    used = {name for node in graph.node for name in node.input}
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    for entry in made.metadata_props:
        if entry.key == "input":
            entry.value = f"uint8 ({', '.join(layout.upper())}): pixels, which the file normalizes"
    made.metadata_props.add(key="layout", value=layout)
    onnx.checker.check_model(made)
    return made


class _Added:
    """Operators in front of a graph.

    Args:
        graph: changed in place.
        mean, std: (C,) float32.
    """

    def __init__(self, graph: onnx.GraphProto, mean: Array, std: Array) -> None:
        from onnx import numpy_helper

        self._graph, self._mean, self._std = graph, mean, std
        self._values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._names = {name for node in graph.node for name in (*node.input, *node.output)} | set(self._values)
        self._last_first: list[onnx.NodeProto] = []
        self.first = graph.input[0].name
        """Name of the current input."""

    def nodes(self) -> list[onnx.NodeProto]:
        """The operators, in their order."""
        return self._last_first[::-1]

    def in_front(self, operator: str, constant: Array | None = None, **attributes: Any) -> None:
        """Put an operator with an optional constant in front of all."""
        from onnx import helper

        name = self._new("values")
        constants = [] if constant is None else [self._constant(constant)]
        self._last_first.append(helper.make_node(operator, [name, *constants], [self.first], **attributes))
        self.first = name

    def name_input(self, name: str) -> None:
        """Rename the current input, that of an operator in front."""
        self.first = self._new(name)
        self._last_first[-1].input[0] = self.first

    def normalisation(self) -> None:
        """(pixel / 255 - mean) / std, or (pixel + offset) * scale in the first operator as far as it can."""
        import numpy as np
        from onnx import TensorProto

        scale, offset = 1 / (255 * self._std), -255 * self._mean
        (reader, *others) = (node for node in self._graph.node if self.first in node.input)
        if not others and reader.op_type == "QuantizeLinear":
            if self._into_scale(reader, scale, offset):
                self.in_front("Add", _by_channel(offset))
            else:  # in the same steps as outside of the file, so that all values are rounded alike
                self.in_front("Div", _by_channel(self._std))
                self.in_front("Sub", _by_channel(self._mean))
                self.in_front("Div", np.asarray(255, np.float32))
        else:
            scaled = not others and reader.op_type == "Conv" and self._into_weights(reader, scale)
            if not scaled:
                self.in_front("Mul", _by_channel(scale))
            if not (scaled and self._into_bias(reader, offset)):
                self.in_front("Add", _by_channel(offset))
        self.in_front("Cast", to=TensorProto.FLOAT)

    def _into_scale(self, node: onnx.NodeProto, scale: Array, offset: Array) -> bool:
        """Whether the operator quantizes all bytes as before, with the scale in its own."""
        import numpy as np

        if node.input[1] not in self._values:
            return False
        step = self._values[node.input[1]]
        if step.size != 1 or len(set(scale.tolist())) > 1:
            return False
        pixels = np.arange(256, dtype=np.float32)[:, None]  # (256, 1)
        steps = (pixels / np.float32(255) - self._mean) / self._std / step  # (256, C)
        own = np.float32(step.item() / scale[0])
        between = np.abs(steps - np.floor(steps) - 0.5) < _BETWEEN
        if between.any() or not np.array_equal(np.rint(steps), np.rint((pixels + offset) / own)):
            return False
        node.input[1] = self._constant(np.asarray(own))
        return True

    def _into_weights(self, node: onnx.NodeProto, scale: Array) -> bool:
        if node.input[1] not in self._values:
            return False
        weights = self._values[node.input[1]]  # (O, C / group, H, W)
        node.input[1] = self._constant(weights * _of_inputs(node, weights, scale)[:, :, None, None])
        return True

    def _into_bias(self, node: onnx.NodeProto, offset: Array) -> bool:
        """Not with padding: its zeros are means of the images."""
        attributes = {attribute.name: attribute for attribute in node.attribute}
        padded = "pads" in attributes and any(attributes["pads"].ints)
        automatic = "auto_pad" in attributes and attributes["auto_pad"].s not in (b"NOTSET", b"VALID")
        biased = len(node.input) > 2
        if padded or automatic or (biased and node.input[2] not in self._values):
            return False
        weights = self._values[node.input[1]].astype("float64")
        bias = (weights * _of_inputs(node, weights, offset)[:, :, None, None]).sum(axis=(1, 2, 3))
        if biased:
            bias += self._values[node.input[2]]
            del node.input[2]
        node.input.append(self._constant(bias.astype("float32")))
        return True

    def _constant(self, value: Array) -> str:
        """The name of a new initializer."""
        from onnx import numpy_helper

        name = self._new("constant")
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        self._values[name] = value
        return name

    def _new(self, name: str) -> str:
        found, number = name, 0
        while found in self._names:
            number += 1
            found = f"{name}{number}"
        self._names.add(found)
        return found


def _by_channel(values: Array) -> Array:
    return values.reshape(1, -1, 1, 1)


def _of_inputs(node: onnx.NodeProto, weights: Array, values: Array) -> Array:
    """The values of the input channels of each filter: (C,) -> (O, C / group)."""
    group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return values.reshape(group, -1).repeat(len(weights) // group, axis=0)


def _labels(graph: onnx.GraphProto, classes: Sequence[str]) -> list[onnx.NodeProto]:
    """Operators that replace the output by ``probabilities`` (N, classes) and ``label`` (N,)."""
    from onnx import TensorProto, helper

    (output,) = graph.output
    batch = output.type.tensor_type.shape.dim[0].dim_param or "batch"
    names = helper.make_tensor(
        "class_names", TensorProto.STRING, [len(classes)], [name.encode("utf-8") for name in classes]
    )
    graph.initializer.append(names)
    nodes = [
        helper.make_node("Softmax", [output.name], ["probabilities"], axis=1),
        helper.make_node("ArgMax", [output.name], ["class_number"], axis=1, keepdims=0),
        helper.make_node("Gather", ["class_names", "class_number"], ["label"], axis=0),
    ]
    del graph.output[:]
    graph.output.extend([
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, len(classes)]),
        helper.make_tensor_value_info("label", TensorProto.STRING, [batch]),
    ])  # fmt: skip
    return nodes
