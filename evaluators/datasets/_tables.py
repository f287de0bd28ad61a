"""Data sets in tables: CSV and Parquet files, and pandas data frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError, escaped
from slimsearch.evaluators.datasets._columns import Table
from slimsearch.evaluators.datasets._dataset import Array, Split
from slimsearch.evaluators.tasks import Classification, LearningTask

SPLIT = "split"
SPLITS = {
    "train": "training", "training": "training", "val": "validation", "valid": "validation",
    "validation": "validation", "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
_LISTED = 12
_LEAST_PER_CLASS = 3  # examples, on average
_FEW_ROWS = 20  # of which all texts may be different by chance


@dataclass(frozen=True)
class TableSource:
    """A table with its targets.

    Attributes:
        splits: rows of the values of `table` with their targets.
        names: of the targets: classes, or columns.
        table: the columns that are learned from; its values are those of all rows.
        groups: (N,) of the training rows, or None.
        notes: lines about the reading.
    """

    splits: dict[str, Split]
    names: tuple[str, ...]
    table: Table
    groups: Array | None
    notes: tuple[str, ...]


def is_frame(data: Any) -> bool:
    """Whether a value is a pandas data frame."""
    return hasattr(data, "iloc") and hasattr(data, "columns") and hasattr(data, "dtypes")


def read_table(frame: Any, name: str, task: LearningTask, target: str | None, group_by: str | None) -> TableSource:
    """The columns, targets, splits and groups of a data frame.

    Args:
        frame: a pandas data frame.
        name: of the data set, for messages.
        task: what is learned.
        target: column that is predicted, or several with commas.
        group_by: column whose rows of one value are in one split.

    Raises:
        SlimsearchError: there is no such column, or nothing to learn from.
    """
    frame = frame.rename(columns=str)
    known = list(frame.columns)
    targets = chosen_columns(known, name, target, group_by)
    notes: list[str] = []
    there = frame[targets].notna().all(axis=1).to_numpy()
    if not there.all():
        notes.append(f"{(~there).sum():,} rows without a target are left out")
        frame = frame[there]
    if len(frame) == 0:
        raise SlimsearchError(f"data set '{name}' has no rows with a target")
    part_of = _splits(frame, targets)
    others = [column for column in known if column not in (*targets, group_by)]
    if part_of is not None:
        others.remove(_split_column(known))
    # Left out before the split, so that rows that differ in nothing else are copies.
    if identifiers := [column for column in others if _is_identifier(frame[column])]:
        notes.append(f"columns whose texts are all different are not used: {', '.join(identifiers)}")
    table, left_out = columns_of(frame[[column for column in others if column not in identifiers]])
    if left_out:
        notes.append(f"columns of other kinds than numbers and texts are left out: {', '.join(left_out)}")
    values, names = targets_of(_target_table(frame[targets].infer_objects(), task), task)
    rows = {"training": np.arange(len(frame))}
    if part_of is not None:
        rows = {part: np.flatnonzero(part_of == part) for part in dict.fromkeys(SPLITS.values())}
        rows = {part: found for part, found in rows.items() if len(found)}
        if "training" not in rows:
            raise SlimsearchError(f"data set '{name}': no row has {SPLIT} = train")
        notes.append(f"column {_split_column(known)} gives the splits")
    groups = None if group_by is None else np.unique(frame[group_by].astype(str).to_numpy(str), return_inverse=True)[1]
    return TableSource(
        {part: Split(table.values[chosen], values[chosen]) for part, chosen in rows.items()},
        names,
        table,
        None if groups is None else groups[rows["training"]],
        tuple(map(escaped, notes)),
    )


def chosen_columns(known: Sequence[str], name: str, target: str | None, group_by: str | None) -> list[str]:
    """The target columns of a table.

    Raises:
        SlimsearchError: one of them, or the column of groups, is not a column.
    """
    targets = [one.strip() for one in target.split(",")] if target and target not in known else [target or ""]
    again = [column for position, column in enumerate(targets) if column in targets[:position]]
    if again:
        raise SlimsearchError(f"--target-column names {again[0]} twice")
    for option, columns in (("--target-column", targets), ("--group-by", [] if group_by is None else [group_by])):
        if unknown := [column for column in columns if column not in known]:
            listed = ", ".join(known[:_LISTED]) + (", ..." if len(known) > _LISTED else "")
            given = "is missing" if unknown == [""] else f"{unknown[0]} is not a column"
            raise SlimsearchError(f"{option} {given}; columns of '{name}': {listed}")
    return targets


def _is_identifier(column: Any) -> bool:
    from pandas.api import types

    is_text = not types.is_numeric_dtype(column.dtype)
    return is_text and is_identifier_like(len(column)) and bool(column.is_unique)


def is_identifier_like(rows: int) -> bool:
    """Whether texts that are all different are names of the rows, as there are enough of these."""
    return rows > _FEW_ROWS


def columns_of(frame: Any) -> tuple[Table, list[str]]:
    """The columns of numbers and of texts of a data frame, and the names of others."""
    from pandas.api import types

    names, values, texts, left_out = [], [], [], []
    for name in frame.columns:
        column = frame[name]
        found: tuple[str, ...] | None = None
        if types.is_bool_dtype(column.dtype) or types.is_numeric_dtype(column.dtype):
            numbers = column.to_numpy(np.float64, na_value=np.nan)
        elif types.is_datetime64_any_dtype(column.dtype) or types.is_timedelta64_dtype(column.dtype):
            left_out.append(str(name))
            continue
        else:
            there = column.notna().to_numpy()
            numbers = np.full(len(column), np.nan)
            distinct, numbers[there] = np.unique(column[there].astype(str).to_numpy(str), return_inverse=True)
            found = tuple(distinct.tolist()) or None
        names.append(str(name))
        values.append(numbers)
        texts.append(found)
    if not names:
        raise SlimsearchError("the table has no columns of numbers or texts beside its targets")
    return Table(tuple(names), np.stack(values, axis=1), tuple(texts)), left_out


def _split_column(known: Sequence[str]) -> str:
    return next((column for column in known if column.lower() == SPLIT), "")


def _splits(frame: Any, targets: Sequence[str]) -> Array | None:
    """(N,) the split of each row, where a column is called split and says so."""
    column = _split_column(list(frame.columns))
    if not column or column in targets or frame[column].isna().any():
        return None
    words = frame[column].astype(str).str.strip().str.lower()
    return words.map(SPLITS).to_numpy(str) if set(words) <= set(SPLITS) and set(words) - {"train"} else None


def _target_table(frame: Any, task: LearningTask) -> Table:
    """The target columns; those of a classification that are no numbers are texts."""
    from pandas.api import types

    def texts(column: Any) -> bool:
        numeric = types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype)
        return isinstance(task, Classification) and not numeric

    odd = [name for name in frame.columns if texts(frame[name])]
    table, others = columns_of(frame.astype(dict.fromkeys(odd, str)))
    if others:
        raise SlimsearchError(f"--target-column {others[0]} has neither numbers nor texts")
    return table


def targets_of(table: Table, task: LearningTask) -> tuple[Array, tuple[str, ...]]:
    """The values of the target columns, and the names of classes or columns.

    Raises:
        SlimsearchError: they are no targets of the task.
    """
    values = np.asarray(table.values)
    if not isinstance(task, Classification):
        if odd := [name for name, texts in zip(table.names, table.texts, strict=True) if texts is not None]:
            raise SlimsearchError(f"--target-column {odd[0]} has texts; --task {task.name} needs numbers")
        return values, table.names
    if len(table.names) > 1:
        raise SlimsearchError(
            "--task classification has one --target-column; several of zeros and ones are for --task multilabel"
        )
    numbers, texts = values[:, 0], table.texts[0]
    if texts is not None:
        found, labels = np.unique(numbers.astype(np.int64), return_inverse=True)
        return labels, tuple(texts[number] for number in found)
    found, labels = np.unique(numbers, return_inverse=True)
    if _LEAST_PER_CLASS * len(found) > len(labels) or not np.equal(found, np.floor(found)).all():
        raise SlimsearchError(
            f"--target-column {table.names[0]} has {len(found):,} different numbers; is it --task regression?"
        )
    return labels, tuple(str(int(value)) for value in found)
