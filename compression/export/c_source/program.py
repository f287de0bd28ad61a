"""Programs of C functions over buffers, and their static memory plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

SIZES = {"float": 4, "int32_t": 4, "uint16_t": 2, "int8_t": 1, "uint8_t": 1}
"""Bytes of each type of C."""
_ALIGNMENT = 4


@dataclass(eq=False, frozen=True)
class Buffer:
    """Memory of activations.

    Attributes:
        c_type: "float" or "uint8_t".
        count: of numbers.
    """

    c_type: str
    count: int

    @property
    def bytes(self) -> int:
        """Size, a multiple of the alignment."""
        return -(-self.count * SIZES[self.c_type] // _ALIGNMENT) * _ALIGNMENT


@dataclass(eq=False, frozen=True)
class Constant:
    """Numbers in read-only memory.

    Attributes:
        label: what they are, in a word.
        c_type: of the numbers, or "window" or "arrangement".
        count: of numbers of C.
        values: computes them.
    """

    label: str
    c_type: str
    count: int
    values: Callable[[], Array]


@dataclass(frozen=True)
class Position:
    """A place in a buffer or constant, `offset` numbers behind its beginning."""

    base: Buffer | Constant
    offset: int


Argument = Buffer | Constant | Position | int | float


@dataclass(frozen=True)
class Kernel:
    """A C function.

    Attributes:
        name: of the function.
        file: its text.
        replacements: of the words between ``@`` in the text.
        needs: names of files that come before it.
    """

    name: str
    file: str
    replacements: tuple[tuple[str, str], ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """A call of a C function.

    Attributes:
        kernel: the function.
        arguments: of the call.
        writes: the buffer that it writes.
        in_place: buffers at whose beginning the written one may begin if nothing reads them afterwards.
    """

    kernel: Kernel
    arguments: tuple[Argument, ...]
    writes: Buffer
    in_place: tuple[Buffer, ...] = ()

    @property
    def reads(self) -> set[Buffer]:
        """The buffers that it reads."""
        bases = {one.base if isinstance(one, Position) else one for one in self.arguments}
        return {base for base in bases if isinstance(base, Buffer) and base is not self.writes}


@dataclass(frozen=True)
class Program:
    """A network as calls of C functions.

    Attributes:
        steps: the calls.
        input, output: buffers.
        input_shape, output_shape: without the batch.
        metadata: of the network's file.
    """

    steps: Sequence[Step]
    input: Buffer
    output: Buffer
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    metadata: Mapping[str, str]

    @property
    def constants(self) -> list[Constant]:
        """All constants, those with the widest numbers first, as they lie in memory."""
        bases = [one.base if isinstance(one, Position) else one for step in self.steps for one in step.arguments]
        found = dict.fromkeys(base for base in bases if isinstance(base, Constant))
        return sorted(found, key=lambda constant: -SIZES[number_type(constant.c_type)])

    @property
    def flash_bytes(self) -> int:
        """Size of the constants."""
        total = sum(constant.count * SIZES[number_type(constant.c_type)] for constant in self.constants)
        widest = max((SIZES[number_type(constant.c_type)] for constant in self.constants), default=1)
        return -(-total // widest) * widest


def number_type(c_type: str) -> str:
    """The type of the numbers that a structure consists of."""
    return {"window": "uint16_t", "arrangement": "int32_t"}.get(c_type, c_type)


@dataclass
class MemoryPlan:
    """Where each buffer lies.

    Attributes:
        offsets: in bytes.
        bytes: size of the whole memory.
    """

    offsets: dict[Buffer, int]
    bytes: int


@dataclass(frozen=True)
class _Lifetime:
    """First and last step in which a buffer is in use; -1 is before the first step."""

    first: int
    last: int

    def __and__(self, other: _Lifetime) -> range:
        return range(max(self.first, other.first), min(self.last, other.last) + 1)


def plan_memory(program: Program) -> MemoryPlan:
    """Offsets of all buffers such that no two in use at one time overlap, but where a step works in place.

    Greedy: buffers in several orders, each at the lowest free offset; the best order is used, as in TensorFlow Lite
    (Pisarchyk and Lee 2020, arXiv 2001.03288, "greedy by size").
    """
    lifetimes = _lifetimes(program)
    shared = _shared(program, lifetimes)
    orders = (
        lambda b: (-b.bytes, lifetimes[b].first),
        lambda b: (-b.bytes, -lifetimes[b].first),
        lambda b: (-b.bytes * (1 + lifetimes[b].last - lifetimes[b].first), lifetimes[b].first),
        lambda b: (lifetimes[b].first, -b.bytes),
        lambda b: (-lifetimes[b].last, -b.bytes),
    )
    least = _least(program, lifetimes, shared)
    best: MemoryPlan | None = None
    for order in orders:
        plan = _greedy(sorted(lifetimes, key=order), lifetimes, shared)
        if best is None or plan.bytes < best.bytes:
            best = plan
        if best.bytes <= least:
            break
    assert best is not None
    return best


def _lifetimes(program: Program) -> dict[Buffer, _Lifetime]:
    found = {program.input: _Lifetime(-1, -1)}
    for number, step in enumerate(program.steps):
        for buffer in (*step.reads, step.writes):
            first = found[buffer].first if buffer in found else number
            found[buffer] = _Lifetime(first, number)
    found[program.output] = dataclasses.replace(found[program.output], last=len(program.steps))
    return found


def _shared(program: Program, lifetimes: Mapping[Buffer, _Lifetime]) -> set[frozenset[Buffer]]:
    """Pairs of which one may begin where the other one begins, although both are in use in one step."""
    return {
        frozenset((buffer, step.writes))
        for number, step in enumerate(program.steps)
        for buffer in step.in_place
        if lifetimes[buffer].last == lifetimes[step.writes].first == number
    }


def _least(program: Program, lifetimes: Mapping[Buffer, _Lifetime], shared: set[frozenset[Buffer]]) -> int:
    """A size that no plan is below: the largest sum of what is in use in one step."""
    largest = 0
    for number, step in enumerate(program.steps):
        alive = sum(buffer.bytes for buffer, life in lifetimes.items() if life.first <= number <= life.last)
        saved = [min(b.bytes, step.writes.bytes) for b in step.in_place if frozenset((b, step.writes)) in shared]
        largest = max(largest, alive - max(saved, default=0))
    return largest


def _greedy(
    order: Sequence[Buffer], lifetimes: Mapping[Buffer, _Lifetime], shared: set[frozenset[Buffer]]
) -> MemoryPlan:
    offsets: dict[Buffer, int] = {}
    for buffer in order:
        others = [other for other in offsets if lifetimes[buffer] & lifetimes[other]]
        for offset in sorted({0, *(offsets[o] + o.bytes for o in others), *(offsets[o] for o in others)}):
            if all(
                offset + buffer.bytes <= offsets[other]
                or offsets[other] + other.bytes <= offset
                or (offset == offsets[other] and frozenset((buffer, other)) in shared)
                for other in others
            ):
                offsets[buffer] = offset
                break
    return MemoryPlan(offsets, max(offsets[buffer] + buffer.bytes for buffer in offsets))
