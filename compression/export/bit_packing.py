"""Integers of 2 to 7 bits in an ONNX file, stored in whole bytes that the runtime expands once, on loading.

The bits of an integer are split into digits of 4, 2 and 1 bits. A tensor has one row of bytes for each digit, with 2, 4
or 8 digits in a byte, which Div and Mod take out. A table gives the contribution of each digit as int8, and the
BitwiseOr of an integer's contributions, which have no bits in common, is the integer. These operators read constants
alone, so that a runtime evaluates them when it loads the file, and then runs what it runs for int8. They are in
operator set 18; INT4 tensors need operator set 21, and ONNX Runtime dequantizes them at each call, in float32.
(BitShift would be shorter than Div and Mod; in front of a Gemm, OpenVINO 2026.4 then computes something else.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, np.dtype[Any]]

_WIDTHS = (4, 2, 1)  # of digits
_LEVELS = (2, 3, 4, 5, 6, 7)


def pack_integers(model: onnx.ModelProto, bits: Mapping[str, int]) -> None:
    """Pack int8 initializers of `model`, in place, where the file becomes smaller.

    All integers of equally many bits are packed together, since the operators that expand them take some hundred bytes.
    A tensor may be stored in more bits than it has, where that saves operators.

    Args:
        model: of operator set 18 or later.
        bits: of the integers, which are in ``[-2^(bits - 1), 2^(bits - 1) - 1]``, by the initializer's name.
    """
    chosen = [tensor for tensor in model.graph.initializer if bits.get(tensor.name, 8) < 8]
    options = (levels for count in range(len(_LEVELS) + 1) for levels in itertools.combinations(_LEVELS, count))
    levels = min(options, key=lambda levels: _size(chosen, bits, levels))
    groups = [_Packed(level, tensors) for level, tensors in _groups(chosen, bits, levels).items()]
    if not groups:
        return
    graph = model.graph
    packed = {name for group in groups for name in group.names}
    rest = [tensor for tensor in graph.initializer if tensor.name not in packed]
    shared = {tensor.name: tensor for group in groups for tensor in group.tensors}
    nodes = [*(node for group in groups for node in group.nodes), *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend((*rest, *shared.values()))
    graph.node.extend(nodes)


def _groups(
    tensors: Sequence[onnx.TensorProto], bits: Mapping[str, int], levels: Sequence[int]
) -> dict[int, list[onnx.TensorProto]]:
    """The tensors by the smallest of `levels` that has room for them; without those that no level has room for."""
    found: dict[int, list[onnx.TensorProto]] = {}
    for tensor in tensors:
        level = next((level for level in levels if level >= bits[tensor.name]), None)
        if level is not None:
            found.setdefault(level, []).append(tensor)
    return found


def _size(tensors: Sequence[onnx.TensorProto], bits: Mapping[str, int], levels: Sequence[int]) -> int:
    """Bytes of the tensors if they are stored in `levels`, without their names."""
    groups = _groups(tensors, bits, levels)
    inside = {tensor.name for own in groups.values() for tensor in own}
    size = sum(_bytes(tensor) for tensor in tensors if tensor.name not in inside)
    shared: dict[str, int] = {}
    for level, own in groups.items():
        # What is expanded counts by its size alone, as its values take time to pack.
        packed = _Packed(level, own, empty=True)
        size += sum(map(_bytes, packed.nodes)) + level * sum(math.prod(tensor.dims) for tensor in own) // 8
        shared |= {tensor.name: _bytes(tensor) for tensor in packed.tensors}
    return size + sum(shared.values())


def _bytes(message: onnx.TensorProto | onnx.NodeProto) -> int:
    """Size in a file in which names are short, see `compact`."""
    names = [message.name, *getattr(message, "input", ()), *getattr(message, "output", ())]
    return int(message.ByteSize()) - sum(max(0, len(name) - 2) for name in names)


def expand_integers(model: onnx.ModelProto) -> None:
    """Replace what `pack_integers` wrote by int8 initializers, in place."""
    from onnx import TensorProto, numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    divided = {node.input[0] for node in graph.node if node.op_type == "Div"}
    packed = {node.input[0] for node in graph.node if node.op_type == "Cast" and node.output[0] in divided} & {
        *constants
    }
    expanded: dict[str, Array] = {}
    rest = []
    for node in graph.node:
        to = [attribute.i for attribute in node.attribute if attribute.name == "to"]
        begins = to == [TensorProto.INT32] and node.input[0] in packed
        goes_on = node.op_type in _OPERATORS and not to and not expanded.keys().isdisjoint(node.input)
        if begins or goes_on:
            inputs = [
                expanded[name] if name in expanded else numpy_helper.to_array(constants[name]) for name in node.input
            ]
            results = _OPERATORS[node.op_type](*inputs)
            expanded |= zip(node.output, results if node.op_type == "Split" else [results], strict=True)
        else:
            rest.append(node)
    read = {name for node in rest for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    kept += [numpy_helper.from_array(value, name) for name, value in expanded.items() if name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(rest)
    graph.initializer.extend(kept)


class _Packed:
    """Tensors that are packed together.

    Args:
        bits: of the integers.
        tensors: int8.
        empty: whether to leave out their values.

    Attributes:
        names: of the expanded tensors.
        tensors: packed integers and constants; those with equal names are equal.
        nodes: give the tensors their names.
    """

    def __init__(self, bits: int, tensors: Sequence[onnx.TensorProto], *, empty: bool = False) -> None:
        import numpy as np
        from onnx import TensorProto, numpy_helper

        self.names = [tensor.name for tensor in tensors]
        self.tensors: list[onnx.TensorProto] = []
        self.nodes: list[onnx.NodeProto] = []
        sizes = [math.prod(tensor.dims) for tensor in tensors]
        rest = -sum(sizes) % 8  # whole bytes of digits of every width
        codes = np.zeros(0 if empty else sum(sizes) + rest, np.uint8)
        if not empty:
            values = np.concatenate([numpy_helper.to_array(tensor).ravel() for tensor in tensors])
            codes[: len(values)] = values.astype(np.int16) + (1 << (bits - 1))
        found, low = "", 0
        for width in _widths(bits):
            own = f"bits:{bits}.{low}"
            self._constant(own, _joined(codes >> low & (1 << width) - 1, width))
            powers = self._constant(f"bits:{width}p", np.array([1 << shift for shift in range(0, 8, width)], np.int32))
            digits = self._node("Cast", [own], f"{own}i", to=TensorProto.INT32)
            digits = self._node("Div", [digits, powers], f"{own}s")
            digits = self._node("Mod", [digits, self._constant(f"bits:{width}m", np.int32(1 << width))], f"{own}d")
            digits = self._node("Gather", [self._constant(f"{own}t", _table(bits, low, width)), digits], f"{own}g")
            digits = self._node("Reshape", [digits, self._constant("bits:flat", np.array([-1]))], f"{own}f")
            found = self._node("BitwiseOr", [found, digits], f"{own}o") if found else digits
            low += width
        ends = [f"bits:{bits}:{number}" for number in range(len(tensors))]
        if rest or len(ends) > 1:
            parts = self._constant(f"bits:{bits}n", np.array([*sizes, *([rest] if rest else [])]))
            self._node("Split", [found, parts], *ends, *([f"bits:{bits}r"] if rest else []), axis=0)
        else:
            ends = [found]
        for end, tensor in zip(ends, tensors, strict=True):
            shape = self._constant(f"bits:{'x'.join(map(str, tensor.dims))}", np.array(tensor.dims))
            self._node("Reshape", [end, shape], tensor.name)

    def _constant(self, name: str, value: Any) -> str:
        import numpy as np
        from onnx import numpy_helper

        self.tensors.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(self, kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return outputs[0]


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


_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "BitwiseOr": lambda one, other: one | other,
    "Cast": lambda values: values.astype("int32"),
    "Div": lambda values, powers: values // powers,
    "Gather": lambda table, indices: table[indices],
    "Mod": lambda values, count: values % count,
    "Reshape": lambda values, shape: values.reshape(shape),
    "Split": lambda values, sizes: [values[end - size : end] for size, end in zip(sizes, sizes.cumsum(), strict=True)],
}
"""What the operators of the packed form compute."""
