"""Data sets of Hugging Face: from its cache, or from a folder that save_to_disk wrote. Nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError, escaped, first_line, reason
from slimsearch.evaluators.datasets._dataset import Array
from slimsearch.evaluators.datasets._frames import Frames
from slimsearch.evaluators.datasets._items import IMAGES, LABELS
from slimsearch.evaluators.datasets._stored import is_large
from slimsearch.evaluators.datasets._tables import SPLIT, SPLITS

PREFIX = "hf:"
_LISTED = 12
_CELLS = 400_000  # of a table that are read at a time


@dataclass(frozen=True)
class HuggingFaceData:
    """A data set of Hugging Face, as `load_dataset` reads it.

    Attributes:
        name: by which a run records it.
        splits: (input, target) pairs of each split; None: a table.
        table: a data frame, or `Frames` if it is large; None: pairs.
        target: the column that is predicted.
        groups: (N,) of the training pairs, or None.
        files: size and date of the files by their paths.
        notes: lines about what is skipped.
    """

    name: str
    splits: dict[str, Any] | None
    table: Any
    target: str
    groups: Array | None
    files: dict[str, str]
    notes: tuple[str, ...]


def is_hugging_face(data: Any) -> bool:
    """Whether `data` is ``hf:NAME`` or a folder that ``save_to_disk`` wrote."""
    if not isinstance(data, str | Path):
        return False
    if str(data).startswith(PREFIX):
        return True
    try:
        folder = Path(data).expanduser()
        is_split = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
        return bool(str(data)) and ((folder / "dataset_dict.json").is_file() or is_split)
    except (OSError, ValueError, RuntimeError):  # too long, or of an unknown user
        return False


def open_hugging_face(data: str | Path, target: str | None, group_by: str | None) -> HuggingFaceData:
    """Open a data set whose columns say which is the input.

    The input is the column of images or arrays; if there is none, all columns of numbers and texts are a table. The
    target is the column of classes, unless it is given. Splits that are not called train, validation or test are
    skipped, and so is one without targets (-1).

    Args:
        data: ``hf:NAME``, ``hf:NAME:CONFIGURATION``, or the path of a folder.
        target: column that is predicted.
        group_by: column whose rows of one value are in one split.

    Raises:
        SlimsearchError: it is not in the cache, or its columns do not say what is learned.
    """
    name = str(data) if str(data).startswith(PREFIX) else Path(data).resolve().name
    notes: list[str] = []
    splits = _splits(_opened(data), name, notes)
    features = splits["training"].features
    column = _target(features, name, target)
    for part in [part for part in splits if _without_targets(splits[part], column)]:
        notes.append(f"the {part} split has no targets, and is skipped")
        del splits[part]
    if "training" not in splits:
        raise SlimsearchError(f"data set '{name}' has no training examples with a target in the column {column}")
    files = {file: f"{Path(file).stat().st_size}:{Path(file).stat().st_mtime_ns}" for file in _files(splits.values())}
    if group_by is not None and group_by not in features:
        raise SlimsearchError(f"--group-by {group_by} is not a column; columns of '{name}': {_listed(features)}")
    others = [one for one in features if one not in (column, group_by)]
    arrays = [one for one in others if _is_image(features[one]) or _is_array(features[one])]
    if not arrays:
        return HuggingFaceData(name, None, _table(splits, name, files), column, None, files, tuple(notes))
    known = [one for one in arrays if one.lower() in IMAGES] if len(arrays) > 1 else arrays
    if len(known) != 1:
        raise SlimsearchError(
            f"data set '{name}' has several columns of images or arrays: {', '.join(arrays)}; keep one of them with "
            "select_columns and save_to_disk"
        )
    if skipped := [one for one in others if one != known[0]]:
        notes.append(
            f"of each item, {known[0]} is the input and {column} the target, and skipped: {', '.join(skipped)}"
        )
    groups = None if group_by is None else np.asarray(splits["training"][group_by][:])
    pairs = {part: _Pairs(one, known[0], column) for part, one in splits.items()}
    return HuggingFaceData(name, pairs, None, column, groups, files, tuple(map(escaped, notes)))


class _Pairs:
    """(input, target) pairs of a split.

    Attributes:
        classes: names of the targets, if they are classes.
    """

    def __init__(self, split: Any, given: str, target: str) -> None:
        feature = split.features[given]
        self._rows = split.select_columns([given, target])
        self._given, self._target, self._dtype = given, target, None if _is_image(feature) else _dtype(feature)
        if hasattr(split.features[target], "names"):
            self.classes = tuple(split.features[target].names)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        row = self._rows[index]
        given = row[self._given]
        return given if self._dtype is None else np.asarray(given, self._dtype), row[self._target]


def _opened(data: str | Path) -> Any:
    """The data set, or a dict of its splits."""
    try:
        import datasets
    except ImportError as error:
        raise SlimsearchError(f"'{data}' needs datasets: pip install 'slimsearch[huggingface]'") from error
    if not str(data).startswith(PREFIX):
        try:
            return datasets.load_from_disk(str(Path(data).expanduser()))
        except Exception as error:  # pyarrow and the package raise many kinds
            raise SlimsearchError(f"cannot read the data set '{data}': {reason(error)}") from error
    from datasets.packaged_modules.cache.cache import Cache

    name, _, configuration = str(data).removeprefix(PREFIX).partition(":")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", str(data).removeprefix(PREFIX)):
        raise SlimsearchError(f"'{data}' is neither {PREFIX}NAME nor {PREFIX}NAME:CONFIGURATION")
    try:
        # What the package itself falls back to without a network. It runs no code of the data set.
        return Cache(
            repo_id=name, dataset_name=name.rpartition("/")[2], config_name=configuration or None, hash="auto",
            version="auto",
        ).as_dataset()  # fmt: skip
    except Exception as error:
        if "multiple" in str(error):
            known = first_line(error).partition("in the cache: ")[2]
            raise SlimsearchError(
                f"'{data}' has several configurations in the cache of Hugging Face: {known}; add one, such as "
                f"{PREFIX}{name}:{known.partition(',')[0]}"
            ) from error
        given = f"'{name}', '{configuration}'" if configuration else f"'{name}'"
        command = f'python -c "import datasets; datasets.load_dataset({given})"'
        raise SlimsearchError(
            f"'{data}' is not in the cache of Hugging Face, '{datasets.config.HF_DATASETS_CACHE}'; this fetches it: "
            f"{command}"
        ) from error


def _splits(opened: Any, name: str, notes: list[str]) -> dict[str, Any]:
    """The splits by their parts of the search, "training" first."""
    if not isinstance(opened, Mapping):
        return {"training": opened}
    found: dict[str, Any] = {}
    for split, rows in opened.items():
        part = SPLITS.get(str(split).lower())
        if part is None or part in found:
            notes.append(f"the split {split} is skipped")
        else:
            found[part] = rows
    if "training" not in found:
        raise SlimsearchError(f"data set '{name}' has no split train; its splits: {', '.join(map(str, opened))}")
    return {part: found[part] for part in dict.fromkeys(SPLITS.values()) if part in found}


def _target(features: Mapping[str, Any], name: str, target: str | None) -> str:
    if target is not None:
        unknown = [one for one in (column.strip() for column in target.split(",")) if one not in features]
        if target in features or not unknown:
            return target
        raise SlimsearchError(f"--target-column {unknown[0]} is not a column; columns of '{name}': {_listed(features)}")
    classes = [column for column, feature in features.items() if hasattr(feature, "names")]
    found = classes if len(classes) == 1 else [column for column in features if column.lower() in LABELS]
    if len(found) != 1:
        raise SlimsearchError(f"--target-column is missing; columns of '{name}': {_listed(features)}")
    return found[0]


def _listed(features: Mapping[str, Any]) -> str:
    return ", ".join(list(features)[:_LISTED]) + (", ..." if len(features) > _LISTED else "")


def _without_targets(split: Any, target: str) -> bool:
    """Whether no row has a class, as in test splits whose labels are secret."""
    if target not in split.features or not hasattr(split.features[target], "names"):
        return False
    return bool((np.asarray(split.with_format("numpy")[target][:]) < 0).all())


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _is_array(feature: Any) -> bool:
    """Whether values are lists or arrays of numbers."""
    inner = getattr(feature, "feature", None)
    if inner is None:
        return type(feature).__name__ in ("Array2D", "Array3D", "Array4D", "Array5D")
    return _is_array(inner) or _is_number(inner)


def _is_number(feature: Any) -> bool:
    dtype = str(getattr(feature, "dtype", ""))
    return type(feature).__name__ == "Value" and dtype.startswith(("int", "uint", "float", "bool"))


def _dtype(feature: Any) -> str:
    while hasattr(feature, "feature"):
        feature = feature.feature
    return str(feature.dtype)


def _files(splits: Collection[Any]) -> list[str]:
    return sorted({file["filename"] for split in splits for file in split.cache_files})


def _table(splits: Mapping[str, Any], name: str, files: Mapping[str, str]) -> Any:
    """All columns of numbers and texts, with one that says the split; several splits become one table."""
    features = splits["training"].features
    columns = [one for one in features if _is_number(features[one]) or _is_text(features[one])]
    several = len(splits) > 1
    columns = [one for one in columns if not (several and one.lower() == SPLIT)]

    def read(_: Collection[str]) -> Iterator[Any]:
        for part, split in splits.items():
            rows = split.select_columns(columns).with_format("pandas")
            size = max(1, _CELLS // len(columns))
            for start in range(0, len(rows), size):
                frame = _with_names(rows[start : start + size], features)
                yield frame.assign(**{SPLIT: part}) if several else frame

    count = sum(map(len, splits.values()))
    if is_large((count, len(columns)), np.float64):
        identity = (name, *(f"{Path(file).name}:{state}" for file, state in files.items()))
        return Frames(name, identity, (*columns, SPLIT) if several else tuple(columns), read)
    import pandas

    return pandas.concat(list(read(())), ignore_index=True)


def _is_text(feature: Any) -> bool:
    return hasattr(feature, "names") or str(getattr(feature, "dtype", "")) in ("string", "large_string")


def _with_names(frame: Any, features: Mapping[str, Any]) -> Any:
    """Classes by their names; -1 is a missing one."""
    for column in frame.columns:
        names: Sequence[str] | None = getattr(features[column], "names", None)
        if names is not None:
            frame[column] = frame[column].map(dict(enumerate(names)))
    return frame
