"""Tables that are not held in memory: read some rows at a time, into the cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError, escaped
from slimsearch.evaluators.datasets._columns import Table
from slimsearch.evaluators.datasets._dataset import Array, Split
from slimsearch.evaluators.datasets._frames import Frames
from slimsearch.evaluators.datasets._stored import Put, StoredInputs, find, key_of, store
from slimsearch.evaluators.datasets._tables import (
    SPLIT,
    SPLITS,
    TableSource,
    chosen_columns,
    is_identifier_like,
    targets_of,
)
from slimsearch.evaluators.tasks import Classification, LearningTask

_MOST_TEXTS = 50_000  # different ones that a column can have


def read_large_table(frames: Frames, task: LearningTask, target: str | None, group_by: str | None) -> TableSource:
    """As `read_table`, for a table that is read some rows at a time, once for all runs.

    A column with more than 50,000 different texts is not used.

    Raises:
        SlimsearchError: there is no such column, or nothing to learn from.
    """
    targets = chosen_columns(frames.columns, frames.name, target, group_by)
    key = key_of("table", list(frames.identity), targets, group_by, isinstance(task, Classification))
    entry = find(key) or _read(frames, key, task, targets, group_by)
    inputs, facts = entry
    texts = tuple(None if texts is None else tuple(texts) for texts in facts["texts"])
    of_targets = Table(
        tuple(targets), facts["targets"],
        tuple(None if texts is None else tuple(texts) for texts in facts["texts_of_targets"]),
    )  # fmt: skip
    values, names = targets_of(of_targets, task)
    parts = dict.fromkeys(SPLITS.values())
    rows = {part: np.flatnonzero(facts["parts"] == number) for number, part in enumerate(parts)}
    rows = {part: chosen for part, chosen in rows.items() if len(chosen)}
    if "training" not in rows:
        raise SlimsearchError(f"data set '{frames.name}': no row has {SPLIT} = train")
    return TableSource(
        {part: Split(inputs.subset(chosen), values[chosen]) for part, chosen in rows.items()},
        names,
        Table(tuple(facts["columns"]), inputs, texts),
        None if group_by is None else facts["groups"][rows["training"]],
        tuple(map(escaped, facts["notes"])),
    )


@dataclass
class _Seen:
    """What is known of a column after some of its rows.

    Attributes:
        kinds: of the values that are there: "number", "bool", "text" or "other".
        texts: the different texts; None: they are too many.
        missing: number of rows without a value.
        complete: whether all values are in `texts`.
    """

    kinds: set[str] = field(default_factory=set)
    texts: set[str] | None = field(default_factory=set)
    missing: int = 0
    complete: bool = True

    def add(self, column: Any, *, as_text: bool = False) -> None:
        """Some rows of the column; `as_text`: it is known to have texts."""
        there = column.notna().to_numpy()
        self.missing += int((~there).sum())
        kind = "text" if as_text else _kind(column)
        if not there.any() and kind != "other":
            return
        self.kinds.add(kind)
        if kind != "text":
            self.complete = False
        elif self.texts is not None:
            self.texts.update(column[there].astype(str).unique().tolist())
            if len(self.texts) > _MOST_TEXTS:
                self.texts = None

    @property
    def is_text(self) -> bool:
        """Whether pandas reads the whole column as texts."""
        return self.kinds > {"bool"} or "text" in self.kinds or (self.kinds == {"bool"} and self.missing > 0)

    @property
    def is_other(self) -> bool:
        """Whether the values are neither numbers nor texts, such as dates."""
        return "other" in self.kinds


def _kind(column: Any) -> str:
    from pandas.api import types

    if types.is_bool_dtype(column.dtype):
        return "bool"
    if types.is_numeric_dtype(column.dtype):
        return "number"
    dates = types.is_datetime64_any_dtype(column.dtype) or types.is_timedelta64_dtype(column.dtype)
    return "other" if dates else "text"


def _read(
    frames: Frames, key: str, task: LearningTask, targets: list[str], group_by: str | None
) -> tuple[StoredInputs, dict[str, Any]]:
    """The entry of the cache with all rows that have a target; a pass over the table, or two, precedes."""
    notes: list[str] = []
    seen, total, count = _looked_at(frames, targets)
    if count < total:
        notes.append(f"{total - count:,} rows without a target are left out")
    if count == 0:
        raise SlimsearchError(f"data set '{frames.name}' has no rows with a target")
    for column in targets:
        if seen[column].is_text and seen[column].texts is None:
            raise SlimsearchError(f"--target-column {column} has more than {_MOST_TEXTS:,} different texts")
    split = next((column for column in frames.columns if column.lower() == SPLIT), "")
    words = {} if split in ("", *targets) else _words(seen[split])
    others = [column for column in frames.columns if column not in (*targets, group_by)]
    if words:
        others.remove(split)
    identifiers = [column for column in others if _is_identifier(seen[column], count)]
    if identifiers:
        notes.append(f"columns whose texts are all different are not used: {', '.join(identifiers)}")
    others = [column for column in others if column not in identifiers]
    if many := [column for column in others if seen[column].is_text and seen[column].texts is None]:
        notes.append(f"columns with more than {_MOST_TEXTS:,} different texts are not used: {', '.join(many)}")
    if left_out := [column for column in others if seen[column].is_other]:
        notes.append(f"columns of other kinds than numbers and texts are left out: {', '.join(left_out)}")
    if words:
        notes.append(f"column {split} gives the splits")
    inputs = [column for column in others if column not in (*many, *left_out)]
    if not inputs:
        raise SlimsearchError("the table has no columns of numbers or texts beside its targets")
    texts = {column: _texts(seen[column], task, is_target=column in targets) for column in (*inputs, *targets)}
    as_texts = [column for column in frames.columns if seen[column].is_text]

    def fill(put: Put) -> dict[str, Any]:
        of_targets = np.empty((count, len(targets)))
        parts, groups, known = np.zeros(count, dtype=np.int8), np.zeros(count, dtype=np.int64), dict[Any, int]()
        start = 0
        for frame in _rows_with(frames, targets, as_texts):
            rows = slice(start, start + len(frame))
            put(start, np.stack([_numbers(frame[column], texts[column]) for column in inputs], axis=1))
            of_targets[rows] = np.stack([_numbers(frame[column], texts[column]) for column in targets], axis=1)
            if words:
                parts[rows] = frame[split].astype(str).map(words).to_numpy()
            if group_by is not None:
                column = frame[group_by] if seen[group_by].is_text else frame[group_by].astype(float, errors="ignore")
                groups[rows] = [known.setdefault(str(value), len(known)) for value in column]
            start += len(frame)
        return {
            "columns": inputs, "texts": [texts[column] for column in inputs], "notes": notes, "targets": of_targets,
            "texts_of_targets": [texts[column] for column in targets], "parts": parts, "groups": groups,
        }  # fmt: skip

    return store(key, frames.name, (count, len(inputs)), np.float64, fill)


def _looked_at(frames: Frames, targets: list[str]) -> tuple[dict[str, _Seen], int, int]:
    """What the columns have, the number of rows, and of those with a target."""
    seen = {column: _Seen() for column in frames.columns}
    total = count = 0
    for frame in frames.read(()):
        total += len(frame)
        there = frame[targets].notna().all(axis=1).to_numpy()
        count += int(there.sum())
        for column, one in seen.items():
            one.add(frame[column] if there.all() else frame.loc[there, column])
    mixed = [column for column, one in seen.items() if one.is_text and not one.complete]
    if mixed:  # some rows looked like numbers
        again = {column: _Seen() for column in mixed}
        for frame in _rows_with(frames, targets, mixed):
            for column, one in again.items():
                one.add(frame[column], as_text=True)
        seen |= again
    return seen, total, count


def _rows_with(frames: Frames, targets: list[str], as_texts: Sequence[str]) -> Iterator[Any]:
    """The rows that have a target."""
    for frame in frames.read(as_texts):
        there = frame[targets].notna().all(axis=1).to_numpy()
        found = frame if there.all() else frame[there]
        if len(found):
            yield found


def _words(split: _Seen) -> Mapping[str, int]:
    """The number of the split that each text of a column stands for, where it says so in every row."""
    if split.missing or not split.is_text or not split.texts:
        return {}
    plain = {text: text.strip().lower() for text in split.texts}
    known = list(dict.fromkeys(SPLITS.values()))
    if not set(plain.values()) <= set(SPLITS) or not set(plain.values()) - {"train"}:
        return {}
    return {text: known.index(SPLITS[word]) for text, word in plain.items()}


def _is_identifier(column: _Seen, rows: int) -> bool:
    distinct = -1 if column.texts is None else len(column.texts) + min(column.missing, 1)
    return column.is_text and is_identifier_like(rows) and distinct == rows


def _texts(column: _Seen, task: LearningTask, *, is_target: bool) -> list[str] | None:
    """The texts of a column in order; None: it has numbers."""
    if is_target and column.kinds == {"bool"} and isinstance(task, Classification):
        return ["False", "True"]
    return sorted(column.texts or ()) or None if column.is_text else None


def _numbers(column: Any, texts: list[str] | None) -> Array:
    """(B,) float64: numbers, or positions in `texts`; missing ones are nan."""
    import pandas

    if texts is None:
        found: Array = column.to_numpy(np.float64, na_value=np.nan)
        return found
    there = column.notna().to_numpy()
    numbers = np.full(len(column), np.nan)
    numbers[there] = pandas.Index(texts).get_indexer(column[there].astype(str))
    return numbers
