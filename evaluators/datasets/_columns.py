"""Columns of tables as inputs of networks: missing numbers by the median, and one input for each category."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.reading import mismatch

Array = np.ndarray[Any, np.dtype[Any]]

_MOST_CATEGORIES = 32
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
        values: (N, columns) float64: numbers, and positions in `texts`; missing ones are nan.
        texts: of each column, the texts that it has, or None if it has numbers.
    """

    names: tuple[str, ...]
    values: Array
    texts: tuple[tuple[str, ...] | None, ...]

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
        columns: list[Column] = []
        unused: list[str] = []
        notes: list[str] = []
        for name, values, texts in zip(self.names, self.values.T, self.texts, strict=True):
            there = values[~np.isnan(values)]
            gaps, distinct = len(values) - len(there), len(np.unique(there))
            if distinct == 0 or (distinct == 1 and (texts is None or gaps == 0)):
                unused.append(f"{name} (no different values)")
            elif texts is None:
                columns.append(Column(name, median=float(np.median(there))))
                if gaps:
                    median = f"the median {columns[-1].median:g}"
                    notes.append(f"column {name}: {median} is in place of {gaps:,} missing numbers of {len(values):,}")
            else:
                counts = Counter(there.astype(int).tolist())
                kept = sorted(texts[number] for number, _ in counts.most_common(_MOST_CATEGORIES))
                columns.append(Column(name, categories=(*kept, *([None] if gaps else []))))
                if len(counts) > len(kept):
                    notes.append(f"column {name}: the {len(kept)} most frequent of {distinct:,} texts are inputs")
        if unused:
            notes.append(f"columns that are not used: {', '.join(unused)}")
        if not columns:
            raise SlimsearchError(f"the table has no column to learn from; {notes[-1]}")
        return tuple(columns), notes


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
