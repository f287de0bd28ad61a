"""Data sets in tables: CSV and Parquet files, and pandas data frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError, escaped, first_line
from slimsearch.evaluators.datasets._columns import Table
from slimsearch.evaluators.datasets._dataset import Array, Split
from slimsearch.evaluators.tasks import Classification, LearningTask

TABLES = (".csv", ".tsv", ".parquet")
_MISSING = ("?",)  # beside those that pandas knows, such as NA and nothing
_SPLIT = "split"
_SPLITS = {
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


def read_frame(path: Path) -> Any:
    """A CSV, TSV or Parquet file as a pandas data frame.

    Raises:
        SlimsearchError: the file cannot be read.
    """
    import pandas

    try:
        if path.suffix.lower() == ".parquet":
            return pandas.read_parquet(path)
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(",;\t|", key=header.count)
        return pandas.read_csv(
            path, sep=separator, na_values=list(_MISSING), skipinitialspace=True, encoding="utf-8-sig", low_memory=False
        )
    except Exception as error:  # pandas and pyarrow raise many kinds
        raise SlimsearchError(f"cannot read the table '{path}': {first_line(error)}") from error


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
    targets = [one.strip() for one in target.split(",")] if target and target not in known else [target or ""]
    for option, columns in (("--target-column", targets), ("--group-by", [] if group_by is None else [group_by])):
        if unknown := [column for column in columns if column not in known]:
            listed = ", ".join(known[:_LISTED]) + (", ..." if len(known) > _LISTED else "")
            given = "is missing" if unknown == [""] else f"{unknown[0]} is no column"
            raise SlimsearchError(f"{option} {given}; columns of '{name}': {listed}")
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
    values, names = _targets(frame[targets].infer_objects(), task)
    rows = {"training": np.arange(len(frame))}
    if part_of is not None:
        rows = {part: np.flatnonzero(part_of == part) for part in dict.fromkeys(_SPLITS.values())}
        rows = {part: found for part, found in rows.items() if len(found)}
        if "training" not in rows:
            raise SlimsearchError(f"data set '{name}': no row has {_SPLIT} = train")
        notes.append(f"column {_split_column(known)} gives the splits")
    groups = None if group_by is None else np.unique(frame[group_by].astype(str).to_numpy(str), return_inverse=True)[1]
    return TableSource(
        {part: Split(table.values[chosen], values[chosen]) for part, chosen in rows.items()},
        names,
        table,
        None if groups is None else groups[rows["training"]],
        tuple(map(escaped, notes)),
    )


def _is_identifier(column: Any) -> bool:
    from pandas.api import types

    return len(column) > _FEW_ROWS and not types.is_numeric_dtype(column.dtype) and bool(column.is_unique)


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
    return next((column for column in known if column.lower() == _SPLIT), "")


def _splits(frame: Any, targets: Sequence[str]) -> Array | None:
    """(N,) the split of each row, where a column is called split and says so."""
    column = _split_column(list(frame.columns))
    if not column or column in targets or frame[column].isna().any():
        return None
    words = frame[column].astype(str).str.strip().str.lower()
    return words.map(_SPLITS).to_numpy(str) if set(words) <= set(_SPLITS) and set(words) - {"train"} else None


def _targets(frame: Any, task: LearningTask) -> tuple[Array, tuple[str, ...]]:
    """The values of the target columns, and the names of classes or columns."""
    from pandas.api import types

    numeric = all(types.is_numeric_dtype(kind) or types.is_bool_dtype(kind) for kind in frame.dtypes)
    if not isinstance(task, Classification):
        if not numeric:
            odd = next(name for name in frame.columns if not types.is_numeric_dtype(frame[name].dtype))
            raise SlimsearchError(f"--target-column {odd} has texts; --task {task.name} needs numbers")
        return frame.to_numpy(np.float64), tuple(frame.columns)
    if frame.shape[1] > 1:
        raise SlimsearchError(
            "--task classification has one --target-column; several of zeros and ones are for --task multilabel"
        )
    column = frame.iloc[:, 0]
    if not numeric or types.is_bool_dtype(column.dtype):
        classes, labels = np.unique(column.astype(str).to_numpy(str), return_inverse=True)
        return labels, tuple(classes.tolist())
    values, labels = np.unique(column.to_numpy(np.float64), return_inverse=True)
    if _LEAST_PER_CLASS * len(values) > len(labels) or not np.equal(values, np.floor(values)).all():
        raise SlimsearchError(
            f"--target-column {column.name} has {len(values):,} different numbers; is it --task regression?"
        )
    return labels, tuple(str(int(value)) for value in values)
