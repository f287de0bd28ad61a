"""Values and steps of a program in the making."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimsearch.compression.export.c_source.graph import Graph, Node
from slimsearch.compression.export.c_source.program import Argument, Buffer, Constant, Kernel, Position, Step
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_LARGEST = 65535  # of the numbers of a window


@dataclass(frozen=True)
class Value:
    """A result of an operator, or a constant that is used like one."""

    base: Buffer | Constant
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def c_type(self) -> str:
        """Type of the elements."""
        return self.base.c_type

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The buffer, if it is no constant."""
        return (self.base,) if isinstance(self.base, Buffer) else ()


class Lowering:
    """The steps of a graph, one operator after the other."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.steps: list[Step] = []
        self.integers: dict[str, tuple[Value, Constant, int]] = {}
        """uint8 values that become floats where these are read, with scale and zero point, by the floats' names."""
        self._values: dict[str, Value] = {}
        self._constants: dict[tuple[str, str], Constant] = {}
        self.set(
            graph.input,
            Value(Buffer("uint8_t" if graph.pixels else "float", math.prod(graph.input_shape)), graph.input_shape),
        )

    def value(self, name: str) -> Value:
        """The value of an operator's input.

        Raises:
            SlimsearchError: its type is not supported.
        """
        if name in self._values:
            return self._values[name]
        if name in self.integers:
            x, scale, zero = self.integers[name]
            y = self.new(x.shape, "float")
            self.step(Kernel("dequantize", "dequantize.c"), y, x, y, y.count, scale, zero, in_place=(x,))
            self.set(name, y)
            return y
        array = self.graph.constants[name]
        types = {"float32": "float", "uint8": "uint8_t"}
        if array.dtype.name not in types:
            raise SlimsearchError(f"a C file cannot compute with constants of {array.dtype}")
        return Value(self.constant("constant", array, types[array.dtype.name]), array.shape)

    def set(self, name: str, value: Value) -> None:
        """Give a result its name."""
        self._values[name] = value

    def array(self, name: str) -> Array:
        """A constant input.

        Raises:
            SlimsearchError: it is not constant.
        """
        if name not in self.graph.constants:
            raise SlimsearchError("a C file needs it constant, and it is not")
        return self.graph.constants[name]

    def is_constant(self, name: str) -> bool:
        """Whether an input is constant."""
        return name in self.graph.constants

    def number(self, name: str) -> float:
        """A constant scalar input."""
        array = self.array(name)
        if array.size != 1:
            raise SlimsearchError("a C file needs one number, and it has several")
        return array.item()  # type: ignore[no-any-return]

    def constant(self, label: str, array: Array, c_type: str = "float") -> Constant:
        """A constant, one for equal numbers."""
        content = hashlib.sha256(array.tobytes()).hexdigest()
        values = functools.partial(_same, array)
        return self._constants.setdefault((c_type, content), Constant(label, c_type, array.size, values))

    def scalar(self, label: str, *numbers: Any) -> Constant:
        """Some floats as a constant."""
        import numpy as np

        return self.constant(label, np.array(numbers, np.float32))

    def window(self, **numbers: int) -> Constant:
        """The numbers of the kernels' `window`, in their order.

        Raises:
            SlimsearchError: a number is too large.
        """
        import numpy as np

        if max(numbers.values()) > _LARGEST:
            raise SlimsearchError(f"a C file has sizes of at most {_LARGEST}")
        return self.constant("window", np.array(list(numbers.values()), np.uint16), "window")

    def step(self, kernel: Kernel, result: Value, *arguments: Argument | Value, in_place: Sequence[Value] = ()) -> None:
        """Add a call that writes `result`."""
        plain = tuple(one.base if isinstance(one, Value) else one for one in arguments)
        assert isinstance(result.base, Buffer)
        self.steps.append(Step(kernel, plain, result.base, tuple(b for value in in_place for b in value.buffers)))

    def result(self, node: Node, shape: Sequence[int], c_type: str = "float") -> Value:
        """A new value for the first output of `node`."""
        value = self.new(shape, c_type)
        self.set(node.outputs[0], value)
        return value

    def new(self, shape: Sequence[int], c_type: str) -> Value:
        """A new value without a name."""
        return Value(Buffer(c_type, math.prod(shape)), tuple(shape))

    def transposed(self, x: Value, order: Sequence[int]) -> Value:
        """A value with its dimensions in another order."""
        shape, distances = [x.shape[i] for i in order], strides(x.shape)
        moved = [i for i in order if x.shape[i] != 1]
        if moved == sorted(moved):
            return Value(x.base, tuple(shape))
        y = self.new(shape, x.c_type)
        self.copy(x, y, shape, [distances[i] for i in order], strides(shape))
        return y

    def with_last(self, x: Value, axis: int) -> tuple[Value, Callable[[Value], Value]]:
        """`x` with dimension `axis` as its last one, and a function that puts a result's dimensions back."""
        rank = len(x.shape)
        order = [i for i in range(rank) if i != axis % rank] + [axis % rank]
        back = [order.index(i) for i in range(rank)]
        return self.transposed(x, order), lambda y: self.transposed(y, back)

    def copy(
        self, source: Value, target: Value, size: Sequence[int], from_: Sequence[int], to: Sequence[int],
        offsets: tuple[int, int] = (0, 0),
    ) -> None:  # fmt: skip
        """Copy a block: its size, the distances of its elements in source and target, and where it begins in each.

        Raises:
            SlimsearchError: it has too many dimensions that cannot be joined.
        """
        import numpy as np

        dimensions = _joined([row for row in zip(size, from_, to, strict=True) if row[0] != 1])
        if len(dimensions) > 4:
            raise SlimsearchError("a C file moves blocks of at most 4 dimensions")
        rows = np.array([(1, 0, 0)] * (4 - len(dimensions)) + dimensions, np.int32)
        floats = source.c_type == "float"
        kernel = Kernel(
            "copy" if floats else "copy_u8", "copy.c", (("TYPE", source.c_type), ("SUFFIX", "" if floats else "_u8")),
            ("arrangement.c",),
        )  # fmt: skip
        arrangement = self.constant("arrangement", rows.T.copy(), "arrangement")
        places = [Position(value.base, offset) for value, offset in zip((source, target), offsets, strict=True)]
        self.step(kernel, target, *places, arrangement)


def _same(array: Array) -> Array:
    return array


def _joined(dimensions: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Dimensions (size, distance in the source, distance in the target), with neighbors joined where they can be."""
    found: list[tuple[int, int, int]] = []
    for size, source, target in dimensions:
        if found and found[-1][1] == source * size and found[-1][2] == target * size:
            found[-1] = (found[-1][0] * size, source, target)
        else:
            found.append((size, source, target))
    return found


def strides(shape: Sequence[int]) -> list[int]:
    """Distances of the neighbors in each dimension of a contiguous array."""
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


Operator = Callable[[Lowering, Node], None]
