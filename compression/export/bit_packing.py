"""Integers of 2 to 7 bits in an ONNX file, stored in whole bytes that the runtime expands once, on loading.

The bits of an integer are split into digits of 4, 2 and 1 bits. A tensor has one row of bytes for each digit, with 2, 4
or 8 digits in a byte, which BitShift and BitwiseAnd take out. A table gives the contribution of each digit as int8, and
the BitwiseOr of an integer's contributions, which have no bits in common, is the integer. These operators read
constants alone, so that ONNX Runtime evaluates them when it loads the file, and then runs what it runs for int8. They
are in operator set 18; INT4 tensors need operator set 21, and their DequantizeLinear runs at each call, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, np.dtype[Any]]

_MARK = "bits:"  # begins names
_WIDTHS = (4, 2, 1)  # of digits
_FLAT, _START = f"{_MARK}flat", f"{_MARK}start"


def pack_integers(model: onnx.ModelProto, bits: Mapping[str, int]) -> None:
    """Pack int8 initializers of `model`, in place, where the file becomes smaller.

    Args:
        model: of operator set 18 or later.
        bits: of the integers, which are in ``[-2^(bits - 1), 2^(bits - 1) - 1]``, by the initializer's name.
    """
    import onnx

    packed = onnx.ModelProto()
    packed.CopyFrom(model)
    shared: dict[str, onnx.TensorProto] = {}
    tensors: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    for number, tensor in enumerate(model.graph.initializer):
        if bits.get(tensor.name, 8) < 8:
            own = _Packed(tensor, bits[tensor.name], f"{_MARK}{number}")
            if sum(one.ByteSize() for one in (*own.tensors, *own.nodes)) < tensor.ByteSize():
                tensors += own.tensors
                nodes += own.nodes
                shared |= own.shared
                continue
        tensors.append(tensor)
    nodes += packed.graph.node
    del packed.graph.initializer[:], packed.graph.node[:]
    packed.graph.initializer.extend((*tensors, *shared.values()))
    packed.graph.node.extend(nodes)
    if packed.ByteSize() < model.ByteSize():
        model.CopyFrom(packed)


def expand_integers(model: onnx.ModelProto) -> None:
    """Replace what `pack_integers` wrote by int8 initializers, in place."""
    from onnx import TensorProto, numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    expanded: dict[str, Array] = {}
    rest = []
    for node in graph.node:
        begins = node.op_type == "BitShift" and all(name in constants for name in node.input)
        goes_on = node.op_type in _OPERATORS and not expanded.keys().isdisjoint(node.input)
        to = [attribute.i for attribute in node.attribute if attribute.name == "to"]
        if (begins or goes_on) and to in ([], [TensorProto.INT32]):
            inputs = [
                expanded[name] if name in expanded else numpy_helper.to_array(constants[name]) for name in node.input
            ]
            expanded[node.output[0]] = _OPERATORS[node.op_type](*inputs)
        else:
            rest.append(node)
    read = {name for node in rest for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    kept += [numpy_helper.from_array(value, name) for name, value in expanded.items() if name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(rest)
    graph.initializer.extend(kept)


class _Packed:
    """The packed form of an int8 tensor.

    Attributes:
        tensors, nodes: of this tensor alone; the last node gives it its name.
        shared: constants of several tensors, by name.
    """

    def __init__(self, tensor: onnx.TensorProto, bits: int, prefix: str) -> None:
        import numpy as np
        from onnx import TensorProto, numpy_helper

        values = numpy_helper.to_array(tensor)
        codes = np.zeros(-(-values.size // 8) * 8, np.uint8)  # whole bytes of digits of every width
        codes[: values.size] = values.ravel().astype(np.int16) + (1 << (bits - 1))
        self.tensors: list[onnx.TensorProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.shared: dict[str, onnx.TensorProto] = {}
        widths = _widths(bits)
        found, low = "", 0
        for position, width in enumerate(widths):
            own = f"{prefix}{'abc'[position]}"
            mask = (1 << width) - 1
            self.tensors.append(numpy_helper.from_array(_joined(codes >> low & mask, width), own))
            shifts = self._constant(f"{_MARK}{width}s", np.arange(0, 8, width, dtype=np.uint8))
            digits = self._node("BitShift", [own, shifts], f"{own}s", direction="RIGHT")
            digits = self._node(
                "BitwiseAnd", [digits, self._constant(f"{_MARK}{width}m", np.array(mask, np.uint8))], f"{own}d"
            )
            digits = self._node("Cast", [digits], f"{own}i", to=TensorProto.INT32)
            table = self._constant(f"{_MARK}{bits}.{low}", _table(bits, low, width))
            digits = self._node("Gather", [table, digits], f"{own}g")
            if len(widths) > 1 or len(codes) > values.size:
                digits = self._node("Reshape", [digits, self._constant(_FLAT, np.array([-1]))], f"{own}f")
            found = self._node("BitwiseOr", [found, digits], f"{own}o") if found else digits
            low += width
        if len(codes) > values.size:
            self.tensors.append(numpy_helper.from_array(np.array([values.size]), f"{prefix}z"))
            start = self._constant(_START, np.array([0]))
            found = self._node("Slice", [found, start, f"{prefix}z"], f"{prefix}y")
        shape = "x".join(map(str, values.shape))
        self._node("Reshape", [found, self._constant(f"{_MARK}{shape}", np.array(values.shape))], tensor.name)

    def _constant(self, name: str, value: Array) -> str:
        from onnx import numpy_helper

        self.shared[name] = numpy_helper.from_array(value, name)
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output


def _widths(bits: int) -> list[int]:
    """Bits of the digits of an integer, from the lowest: 6 bits are 4 and 2."""
    return [width for width in _WIDTHS if bits & width]


def _joined(digits: Array, width: int) -> Array:
    """Bytes of ``8 / width`` digits, the first one lowest: (N,) uint8 -> (N * width / 8, 1) uint8."""
    import numpy as np

    rows = digits.reshape(-1, 8 // width).astype(np.uint16) << np.arange(0, 8, width, dtype=np.uint16)
    found: Array = rows.sum(axis=1, keepdims=True).astype(np.uint8)
    return found


def _table(bits: int, low: int, width: int) -> Array:
    """What each value of a digit contributes to the integer, (2^width,) int8; the highest digit has the sign."""
    import numpy as np

    offset = 1 << (bits - 1) if low + width == bits else 0
    found: Array = ((np.arange(1 << width) << low) - offset).astype(np.int8)
    return found


_OPERATORS: Mapping[str, Callable[..., Array]] = {
    "BitShift": lambda values, shifts: values >> shifts,
    "BitwiseAnd": lambda values, mask: values & mask,
    "BitwiseOr": lambda one, other: one | other,
    "Cast": lambda values: values.astype("int32"),
    "Gather": lambda table, indices: table[indices],
    "Reshape": lambda values, shape: values.reshape(shape),
    "Slice": lambda values, start, stop: values[start[0] : stop[0]],
}
"""What the operators of the packed form compute."""
