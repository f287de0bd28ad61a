"""Packed weights with few distinct values, for storage only: no runtime reads them.

Source: Deep Compression (Han et al. 2016): a table of values, and Huffman-coded indices. Difference: no sparse
matrices; the zeros of a pruned weight get a one-bit code instead of distances between the other values.

A file consists of a magic string, the length of its header, the header (zlib over JSON, one list per tensor) and the
tensors' bytes, little endian. Indices have a canonical Huffman code, preceded by its lengths, or a code of equal
lengths.
"""

from __future__ import annotations

import heapq
import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

from slimsearch.compression._network import Network
from slimsearch.compression.quantization.plan import CODEBOOK, LearnedRange
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Array = np.ndarray[Any, np.dtype[Any]]

_MARK = b"slimsearch-packed-1\n"
_RAW, _FIXED, _HUFFMAN = "raw", "fixed", "huffman"
_LARGEST_TABLE = 256
_LONGEST_CODE = 16
_CHUNK = 1 << 18  # symbols or bytes that are expanded into bits at a time


def pack(network: Network) -> bytes | None:
    """Pack all tensors of the module without loss; None if its weights do not have few values.

    They have few values if the plan's form is ``CODEBOOK``, or if its learned ranges have fewer bits than int8.
    """
    plan = network.quantization
    if plan is None or not (plan.fewer_bits or plan.form == CODEBOOK):
        return None
    header, payloads = [], []
    for name, tensor in network.module.state_dict().items():
        array = tensor.detach().cpu().numpy()
        entry, payload = _pack(array, plan.learned.get(name.removesuffix(".weight")))
        header.append([name, list(array.shape), *entry])
        payloads.append(payload)
    head = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    return b"".join([_MARK, struct.pack("<I", len(head)), head, *payloads])


def unpack(data: bytes) -> dict[str, Tensor]:
    """The tensors of a packed network by name, for ``load_state_dict``.

    Raises:
        SlimsearchError: `data` is not what `pack` wrote.
    """
    import torch

    try:
        if not data.startswith(_MARK):
            raise ValueError("it does not begin with the magic string")
        start = len(_MARK) + 4
        end = start + struct.unpack("<I", data[start - 4 : start])[0]
        reader = _Reader(data, end)
        header = json.loads(zlib.decompress(data[start:end]))
        found = {name: torch.from_numpy(_unpack(reader, *entry)) for name, *entry in header}
        reader.finish()
    except Exception as error:  # zlib, JSON, struct and numpy raise many kinds
        raise SlimsearchError(f"this is no packed network: {error}") from error
    return found


def _pack(array: Array, known: LearnedRange | None) -> tuple[list[Any], bytes]:
    """A tensor's entry in the header (see `_unpack`), and its bytes, in the shortest coding."""
    import numpy as np

    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    forms: list[tuple[list[Any], bytes]] = [([_RAW, array.dtype.str], array.tobytes())]
    table = _table(array, known) if array.ndim > 1 and array.size and array.dtype == np.float32 else None
    if table is not None:
        values, scales, indices = table
        lengths = _code_lengths(np.bincount(indices))
        codes = (_FIXED, _equal_lengths(len(values)), b""), (_HUFFMAN, lengths, lengths.tobytes())
        for coding, code, stored in codes:
            bits = _encode(indices, code)
            entry = [coding, values.dtype.str, len(values), len(scales), len(bits)]
            forms.append((entry, b"".join([values.tobytes(), scales.tobytes(), stored, bits])))
    return min(forms, key=lambda one: len(one[1]))


def _unpack(reader: _Reader, shape: list[int], coding: str, dtype: str, *sizes: int) -> Array:
    import numpy as np

    count = int(np.prod(shape, dtype=np.int64))
    if coding == _RAW:
        return reader.array(dtype, count).reshape(shape).copy()
    number, scaled, length = sizes
    values, scales = reader.array(dtype, number), reader.array("<f4", scaled)
    lengths = reader.array("|u1", number) if coding == _HUFFMAN else _equal_lengths(number)
    found = values[_decode(reader.take(length), lengths, count)].astype(np.float32, copy=False).reshape(shape)
    return found * _along_outputs(scales, found) if scaled else found


class _Reader:
    """Reads `data` piece by piece."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._at = data, start

    def take(self, length: int) -> bytes:
        piece = self._data[self._at : self._at + length]
        if len(piece) != length:
            raise ValueError("it is truncated")
        self._at += length
        return piece

    def array(self, dtype: str, count: int) -> Array:
        import numpy as np

        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype)

    def finish(self) -> None:
        if self._at != len(self._data):
            raise ValueError("it has trailing bytes")


def _table(weight: Array, known: LearnedRange | None) -> tuple[Array, Array, Array] | None:
    """The distinct values of `weight`, scales of its output channels (empty if unused), and (N,) indices.

    None if there are too many values.
    """
    import numpy as np

    scales = np.array([] if known is None else known.weight_scales, np.float32)
    if len(scales) in (1, weight.shape[0]) and np.all(scales > 0):
        spread = _along_outputs(scales, weight)
        multiples = np.round(weight / spread)
        if np.array_equal(multiples * spread, weight) and np.abs(multiples).max(initial=0) < _LARGEST_TABLE // 2:
            values, indices = np.unique(multiples.astype(np.int8), return_inverse=True)
            return values, scales, indices.ravel()
    values, indices = np.unique(weight, return_inverse=True)
    if len(values) > _LARGEST_TABLE or np.isnan(values).any():
        return None
    return values, scales[:0], indices.ravel()


def _along_outputs(scales: Array, weight: Array) -> Array:
    return scales.reshape(-1, *(1 for _ in weight.shape[1:]))


def _equal_lengths(number: int) -> Array:
    import numpy as np

    return np.full(number, (number - 1).bit_length(), np.uint8)


def _code_lengths(counts: Array) -> Array:
    """Bits of each symbol in a Huffman code, (n,) uint8; 0 if there is only one symbol.

    Counts are flattened until no code is too long for the decoder's table, as in bzip2.
    """
    import numpy as np

    lengths = np.zeros(len(counts), np.uint8)
    heap = [(int(count), symbol, [symbol]) for symbol, count in enumerate(counts)]
    heapq.heapify(heap)
    while len(heap) > 1:
        one, other = heapq.heappop(heap), heapq.heappop(heap)
        members = one[2] + other[2]
        lengths[members] += 1
        heapq.heappush(heap, (one[0] + other[0], one[1], members))
    return lengths if lengths.max() <= _LONGEST_CODE else _code_lengths(counts // 2 + 1)


def _canonical(lengths: Array) -> tuple[Array, list[int]]:
    """Symbols in the order of their codes, and the codes, of `lengths` bits each (RFC 1951, 3.2.2)."""
    import numpy as np

    order = np.argsort(lengths, kind="stable")
    codes, code, previous = [], 0, 0
    for length in lengths[order].tolist():
        code <<= length - previous
        codes.append(code)
        code, previous = code + 1, length
    return order, codes


def _encode(indices: Array, lengths: Array) -> bytes:
    """The concatenated codes of `indices`, padded to whole bytes."""
    import numpy as np

    longest = int(lengths.max())
    bits = np.zeros((len(lengths), longest), np.uint8)
    for symbol, code in zip(*_canonical(lengths), strict=True):
        bits[symbol, : lengths[symbol]] = [int(bit) for bit in f"{code:b}".zfill(lengths[symbol])][: lengths[symbol]]
    used = np.arange(longest) < lengths[:, None]  # (symbols, longest)
    chunks = (indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK))
    return np.packbits(np.concatenate([bits[chunk][used[chunk]] for chunk in chunks])).tobytes()


def _decode(data: bytes, lengths: Array, count: int) -> Array:
    """The first `count` indices."""
    import numpy as np

    longest = int(lengths.max())
    if longest == 0:
        return np.zeros(count, np.uint8)
    if longest > _LONGEST_CODE:
        raise ValueError("a code has more bits than allowed")
    order, _ = _canonical(lengths)
    symbols = np.zeros(1 << longest, np.uint8)  # by the next `longest` bits
    steps = np.full(1 << longest, longest, np.uint8)
    filled = np.repeat(order, 1 << (longest - lengths[order].astype(np.int64)))
    symbols[: len(filled)], steps[: len(filled)] = filled, lengths[filled]
    padded = np.frombuffer(data + bytes(4), np.uint8).astype(np.uint32)
    found, position, left = [], 0, count
    for start in range(0, len(data), _CHUNK):
        # Read the next `longest` bits at every bit of the chunk, then jump from code to code.
        own = padded[start : start + _CHUNK + 3]
        words = own[:-3] << 24 | own[1:-2] << 16 | own[2:-1] << 8 | own[3:]
        words = words[: len(data) - start]
        windows = (words[:, None] >> (32 - longest - np.arange(8, dtype=np.uint32)) & ((1 << longest) - 1)).ravel()
        jumps, positions = steps[windows].tobytes(), []
        while position < len(jumps) and left:
            positions.append(position)
            position += jumps[position]
            left -= 1
        found.append(symbols[windows[positions]])
        position -= len(jumps)
    if left or position > 0:
        raise ValueError("it is truncated")
    return np.concatenate(found)
