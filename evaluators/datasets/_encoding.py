"""Inputs of networks from the columns of a table that is on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from slimsearch.evaluators.datasets._columns import Column, Table, columns_from, described
from slimsearch.evaluators.datasets._stored import Put, StoredInputs, find, key_of, store


def encoded_on_disk(
    table: Table, name: str, parts: Sequence[StoredInputs]
) -> tuple[tuple[Column, ...], list[str], list[StoredInputs]]:
    """The columns of a table in the cache as its training rows show them, lines about changed ones, and the inputs.

    Args:
        table: its values are those of the training split.
        name: of the data set.
        parts: rows of the values of each split.

    Raises:
        SlimsearchError: no column is left.
    """
    train = table.values
    assert isinstance(train, StoredInputs)

    def fitted() -> dict[str, Any]:
        columns, notes = table.fitted()
        return {"columns": described(columns), "notes": notes}

    found = train.remember("columns", [train.rows], fitted)
    columns = columns_from(found["columns"])
    key = key_of("inputs of a table", train.file.parent.name, found["columns"])
    whole = Table(table.names, StoredInputs(train.file), table.texts)

    def fill(put: Put) -> dict[str, Any]:
        start = 0
        for block in whole.blocks():
            put(start, Table(table.names, block, table.texts).encoded(columns))
            start += len(block)
        return {}

    width = sum(1 if column.median is not None else len(column.categories) for column in columns)
    known = find(key) or store(key, name, (len(whole.values), width), np.float32, fill)
    return columns, found["notes"], [StoredInputs(known[0].file, part.rows) for part in parts]
