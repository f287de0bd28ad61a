"""Columns of tables as inputs of networks: missing numbers by the median, and one input for each category."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets._stored import Inputs
from slimsearch.reading import mismatch

Array = np.ndarray[Any, np.dtype[Any]]

_MOST_CATEGORIES = 32
_BLOCK = 2**20  # numbers of a table that are looked at together
_DIGIT = 8  # bits of a number by which medians are narrowed down in one pass
_DESCRIPTION = {"name": str, "median?": float, "categories?": [str | None]}


@dataclass(frozen=True)
class Column:
    """A column of a table, and the inputs that it becomes.

    Attributes:
        name: of the column.
        median: of a column of numbers, in place of missing ones; None: a column of texts.
        categories: of a column of texts, each of which is an input of 1 or 0; None stands for a missing text. Other
            texts are 0 in all of them.
    """

    name: str
    median: float | None = None
    categories: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Table:
    """Columns of numbers and texts as one array of numbers.

    Attributes:
        names: of the columns.
        values: (N, columns) float64: numbers, and positions in `texts`; missing ones are nan. Those on disk are read in
            blocks of rows.
        texts: of each column, the texts that it has, or None if it has numbers.
    """

    names: tuple[str, ...]
    values: Inputs
    texts: tuple[tuple[str, ...] | None, ...]

    def blocks(self) -> Iterator[Array]:
        """The values of consecutive rows."""
        rows = max(1, _BLOCK // len(self.names))
        return (self.values[start : start + rows] for start in range(0, len(self.values), rows))

    def encoded(self, columns: Sequence[Column]) -> Array:
        """(N, inputs) float32: the inputs of a network.

        Raises:
            SlimsearchError: a column is missing, or has texts in place of numbers.
        """
        if missing := [column.name for column in columns if column.name not in self.names]:
            raise SlimsearchError(f"the table has no column {', '.join(missing)}")
        inputs: list[Array] = []
        for column in columns:
            index = self.names.index(column.name)
            values, texts = self.values[:, index], self.texts[index]
            if column.median is not None:
                if texts:
                    raise SlimsearchError(f"column '{column.name}' has the text '{texts[0]}' in place of numbers")
                inputs.append(np.where(np.isnan(values), column.median, values))
                continue
            if texts is None:  # numbers, or a column without any text
                values, texts = _as_texts(values)
            position = {text: float(number) for number, text in enumerate(texts)}
            for category in column.categories:
                there = np.isnan(values) if category is None else values == position.get(category, -1.0)
                inputs.append(there)
        return np.stack(inputs, axis=1).astype(np.float32)

    def fitted(self) -> tuple[tuple[Column, ...], list[str]]:
        """The columns as these rows, those of the training split, show them, and a line for each that is changed.

        Raises:
            SlimsearchError: no column is left.
        """
        total = len(self.values)
        present, low, high = _extent(self.blocks)
        varied = (present > 0) & (low < high)
        medians = _medians(self.blocks, present)
        frequent = _most_frequent(self.blocks, [0 if texts is None else len(texts) for texts in self.texts])
        columns: list[Column] = []
        unused: list[str] = []
        notes: list[str] = []
        for index, (name, texts) in enumerate(zip(self.names, self.texts, strict=True)):
            gaps = total - int(present[index])
            if not (varied[index] or (texts is not None and present[index] > 0 and gaps)):
                unused.append(f"{name} (no different values)")
            elif texts is None:
                columns.append(Column(name, median=float(medians[index])))
                if gaps:
                    median = f"the median {columns[-1].median:g}"
                    notes.append(f"column {name}: {median} is in place of {gaps:,} missing numbers of {total:,}")
            else:
                numbers, distinct = frequent[index]
                kept = sorted(texts[number] for number in numbers)
                columns.append(Column(name, categories=(*kept, *([None] if gaps else []))))
                if distinct > len(kept):
                    notes.append(f"column {name}: the {len(kept)} most frequent of {distinct:,} texts are inputs")
        if unused:
            notes.append(f"columns that are not used: {', '.join(unused)}")
        if not columns:
            raise SlimsearchError(f"the table has no column to learn from; {notes[-1]}")
        return tuple(columns), notes


Blocks = Callable[[], Iterator[Array]]
"""Gives the rows of a table from the first to the last, in (B, columns) float64."""


def _extent(blocks: Blocks) -> tuple[Array, Array, Array]:
    """(columns,) each: how many numbers are there, the lowest and the highest."""
    present: Any = 0
    low: Any = np.inf
    high: Any = -np.inf
    for block in blocks():
        there = ~np.isnan(block)
        present = present + there.sum(axis=0)
        low = np.minimum(low, np.where(there, block, np.inf).min(axis=0))
        high = np.maximum(high, np.where(there, block, -np.inf).max(axis=0))
    return present, low, high


def _medians(blocks: Blocks, present: Array) -> Array:
    """(columns,) the median of the numbers that are there, exactly, without holding all of them; nan without any.

    The bits of the numbers are read as integers of the same order (radix select). Each pass counts the next digit of
    the numbers that begin like the median, and so finds that digit; of an even count, of both middle ones.
    """
    ranks = np.stack([(present - 1) // 2, present // 2])  # (2, columns)
    found = np.zeros(ranks.shape, dtype=np.uint64)
    left = 64
    while left:
        width = min(_DIGIT, left)
        counts = np.zeros((*ranks.shape, 2**width), dtype=np.int64)
        for block in blocks():
            for column, values in enumerate(_ordered(block)):
                values = values[~np.isnan(block[:, column])]
                for side in range(1 if (found[0, column] == found[1, column]) else 2):
                    begins = values if left == 64 else values[(values ^ found[side, column]) >> np.uint64(left) == 0]
                    digits = (begins >> np.uint64(left - width)) & np.uint64(2**width - 1)
                    counts[side, column] += np.bincount(digits.astype(np.int64), minlength=2**width)
        left -= width
        same = found[0] == found[1]
        counts[1, same] = counts[0, same]
        below = counts.cumsum(axis=2)  # how many have at most this digit
        digit = (below <= ranks[:, :, None]).sum(axis=2)
        digit = np.minimum(digit, 2**width - 1)  # of columns without numbers
        before = np.take_along_axis(below, np.maximum(digit - 1, 0)[:, :, None], axis=2)[:, :, 0]
        ranks = ranks - np.where(digit > 0, before, 0)
        found |= digit.astype(np.uint64) << np.uint64(left)
    low, high = (_unordered(numbers) for numbers in found)
    return np.where(present > 0, np.where(low == high, low, np.mean([low, high], axis=0)), np.nan)


_SIGN = np.uint64(2**63)


def _ordered(block: Array) -> Array:
    """(columns, B) uint64, in the order of the numbers (B, columns) float64."""
    bits = np.ascontiguousarray(block.T, dtype=np.float64).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _unordered(numbers: Array) -> Array:
    """The numbers of `_ordered`."""
    return np.where(numbers & _SIGN, numbers & ~_SIGN, ~numbers).view(np.float64)


def _most_frequent(blocks: Blocks, distinct: Sequence[int]) -> dict[int, tuple[list[int], int]]:
    """Of each column with texts, the most frequent ones, of equally frequent ones the first, and how many it has.

    Args:
        blocks: the rows.
        distinct: (columns,) number of texts that there are; 0: a column of numbers.
    """
    counts = {column: np.zeros(number, dtype=np.int64) for column, number in enumerate(distinct) if number}
    first = {column: np.full(len(count), np.iinfo(np.int64).max) for column, count in counts.items()}
    start = 0
    for block in blocks() if counts else ():
        for column, count in counts.items():
            rows = np.flatnonzero(~np.isnan(block[:, column]))
            numbers = block[rows, column].astype(np.int64)
            count += np.bincount(numbers, minlength=len(count))
            known, position = np.unique(numbers, return_index=True)
            first[column][known] = np.minimum(first[column][known], start + rows[position])
        start += len(block)
    return {
        column: (
            np.lexsort((first[column], -count))[: min(_MOST_CATEGORIES, np.count_nonzero(count))].tolist(),
            int(np.count_nonzero(count)),
        )
        for column, count in counts.items()
    }


def _as_texts(values: Array) -> tuple[Array, tuple[str, ...]]:
    """Numbers as texts, such as codes of categories in a table that has no other ones."""
    found, codes = np.unique(values, return_inverse=True)
    texts = tuple(str(int(value)) if float(value).is_integer() else str(value) for value in found)
    return np.where(np.isnan(values), np.nan, codes.astype(np.float64)), texts


def described(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """The columns as values for JSON, for a file's metadata."""
    return [
        {"name": column.name, "categories": list(column.categories)}
        if column.median is None
        else {"name": column.name, "median": column.median}
        for column in columns
    ]


def columns_from(value: Any) -> tuple[Column, ...]:
    """The columns of `described`.

    Raises:
        SlimsearchError: the value is none.
    """
    wrong = mismatch(value, [_DESCRIPTION], "columns")
    if wrong is None and not all(("median" in one) != ("categories" in one) for one in value):
        wrong = "a column has neither a median nor categories"
    if wrong is not None:
        raise SlimsearchError(wrong)
    return tuple(Column(one["name"], one.get("median"), tuple(one.get("categories", ()))) for one in value)
