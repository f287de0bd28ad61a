"""Data sets: one named data set per file, image folders, files of arrays, and values from Python."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError, described, escaped
from slimsearch.evaluators.datasets._array_files import is_array_file, read_array_file, read_inputs, read_named_inputs
from slimsearch.evaluators.datasets._arrays import INPUT_KINDS, from_arrays, read_targets
from slimsearch.evaluators.datasets._columns import columns_from
from slimsearch.evaluators.datasets._conversion import inputs_like
from slimsearch.evaluators.datasets._dataset import WHITE, Dataset, Raw, Source, Split
from slimsearch.evaluators.datasets._fields import fields_from, positions
from slimsearch.evaluators.datasets._frames import TABLES, Frames, large_table, read_frame
from slimsearch.evaluators.datasets._hugging_face import is_hugging_face, open_hugging_face
from slimsearch.evaluators.datasets._image_files import read_header, read_image
from slimsearch.evaluators.datasets._image_folder import image_files, read_folder, skipped_files
from slimsearch.evaluators.datasets._large_table import read_large_table
from slimsearch.evaluators.datasets._pictures import are_pictures, picture_url, pictures, pixels
from slimsearch.evaluators.datasets._several_inputs import input_of
from slimsearch.evaluators.datasets._splitting import split
from slimsearch.evaluators.datasets._tables import columns_of, is_frame, read_table
from slimsearch.evaluators.datasets._unlabelled import is_unlabelled, unlabelled
from slimsearch.evaluators.tasks import Classification, LearningTask, load_task
from slimsearch.names import built_in_names, load_class, load_function
from slimsearch.progress import progress
from slimsearch.source import fingerprints

__all__ = [
    "TABLES",
    "WHITE",
    "Dataset",
    "Split",
    "are_pictures",
    "columns_from",
    "columns_of",
    "fields_from",
    "image_files",
    "input_of",
    "inputs_like",
    "is_unlabelled",
    "load_dataset",
    "picture_url",
    "pictures",
    "pixels",
    "positions",
    "read_frame",
    "read_header",
    "read_image",
    "read_inputs",
    "read_named_inputs",
    "sides",
    "skipped_files",
    "unlabelled",
]  # fmt: skip

_log = logging.getLogger(__name__)


def load_dataset(
    data: Any, *, root: str | Path | None = None, download: bool = False,
    image_size: int | str | None = None, drop_duplicates: bool = False,
    task: str | LearningTask = "classification", input_kind: str = "auto", groups: Any = None,
    target_column: str | None = None, group_by: str | None = None,
) -> Dataset:  # fmt: skip
    """Read, resize and split a data set.

    What was skipped, and examples that are in several splits, is reported in log lines of this package.

    Args:
        data: a name, the path of an image folder, of an .npz file or of a folder of .npy files (see
            `read_array_file`), of a table (.csv, .tsv, .parquet), ``hf:NAME`` of a data set in the cache of Hugging
            Face or the folder of one (see `open_hugging_face`), ``path/to/file.py:function`` for a function without
            arguments that returns one of the following, or a value from Python: a pandas data frame,
            ``(inputs, targets)``, ``(inputs, targets, test_inputs, test_targets)``, a PyTorch data set of
            (input, target) pairs, or a dict of splits; see `from_arrays`.
        root: folder of the files of a named data set.
        download: download missing files into `root`.
        image_size: pixels that images are resized to, the side of a square or "WIDTHxHEIGHT"; None: unchanged.
        drop_duplicates: drop copies of examples: in training those of any other example, in validation those of test
            examples and of each other.
        task: what is learned: a name, see `load_task`, or a task.
        input_kind: of arrays: "image", "signal", "table", or "auto", by shape and values.
        groups: (N,) of the training examples: those of one group, such as a patient or a device, are in one split.
        target_column: of a table or a data set of Hugging Face: the column that is predicted, or several of a table
            with commas.
        group_by: of a table or a data set of Hugging Face: the column whose rows of one value are in one split.

    Raises:
        SlimsearchError: the data set or task is unknown, cannot be read, or does not fit into memory.
    """
    size, learned = sides(image_size), load_task(task)
    if input_kind not in INPUT_KINDS:
        raise SlimsearchError(f"input_kind '{input_kind}' is none of {', '.join(INPUT_KINDS)}")
    what = f"reading the data set '{data}'" if isinstance(data, str | Path) else "reading the data set"
    with progress(what):
        return _loaded(
            data, root, download, size, drop_duplicates, learned, input_kind, groups, target_column, group_by
        )


def _loaded(
    data: Any, root: str | Path | None, download: bool, size: tuple[int, int] | None, drop_duplicates: bool,
    learned: LearningTask, input_kind: str, groups: Any, target_column: str | None, group_by: str | None,
) -> Dataset:  # fmt: skip
    """See `load_dataset`, whose options were checked."""
    name, file, code, notes = "arrays", None, dict[str, str](), tuple[str, ...]()
    table = None
    if is_hugging_face(data):
        opened = open_hugging_face(data, target_column, group_by)
        name, code, notes, table = opened.name, opened.files, opened.notes, opened.table
        for note in notes:
            _log.warning("data set '%s': %s", escaped(name), note)
        if table is None:
            data, target_column, group_by = opened.splits, None, None
            groups = opened.groups if groups is None else groups
        else:
            target_column = opened.target
    elif isinstance(data, str) and ":" in data and _file(data) is None:
        location, _, function = data.rpartition(":")
        name, code = f"{Path(location).name}:{function}", fingerprints([location])
        data = _returned(data)
    elif isinstance(data, str | Path):
        name, file = str(data), _file(data)
    if file is not None and file.suffix.lower() in TABLES:
        name, table = file.name, large_table(file) or read_frame(file)
    elif is_frame(data):
        name, table = "table", data
    if table is not None:
        raw = _table(table, name, learned, target_column, group_by)
    elif target_column is not None or group_by is not None:
        option = "--target-column" if target_column is not None else "--group-by"
        raise SlimsearchError(f"{option} names a column of a table ({', '.join(TABLES)}); '{name}' is none")
    elif isinstance(data, str | Path) and file is None:
        raw, name = _named(str(data), root, download, size)
        if not isinstance(learned, Classification):
            raise SlimsearchError(f"data set '{name}' has classes; --task {learned.name} needs other targets")
    else:
        if file is not None:
            (data, of_file), name = read_array_file(file), file.name
            groups = of_file if groups is None else groups
        raw = from_arrays(data, name, learned, size, input_kind, code)
    raw = replace(raw, notes=(*notes, *raw.notes))
    return split(_grouped(raw, groups), name, learned, size, drop_duplicates=drop_duplicates)


def _returned(name: str) -> Any:
    """What a function of the user's returns, or the object itself.

    Raises:
        SlimsearchError: there is no such function, it raises an exception, or returns a name or None.
    """
    found = load_function("data set", name)
    if callable(found):
        with described(f"data set '{name}'"):
            found = found()
    if found is None or isinstance(found, str | Path):
        raise SlimsearchError(
            f"data set '{name}' gives {type(found).__name__}; needed: PyTorch data sets or arrays, as from Python"
        )
    return found


def _table(table: Any, name: str, task: LearningTask, target: str | None, group_by: str | None) -> Raw:
    if isinstance(table, Frames):
        found = read_large_table(table, task, target, group_by)
    else:
        found = read_table(table, name, task, target, group_by)
    for note in found.notes:
        _log.warning("data set '%s': %s", escaped(name), note)
    return replace(read_targets(found.splits, task, found.names, found.notes), table=found.table, groups=found.groups)


def _file(data: str | Path) -> Path | None:
    """The resolved path of a file or folder of arrays or of a table; None for other data sets."""
    try:
        path = Path(data).expanduser()
        is_file = bool(str(data)) and (is_array_file(path) or (path.suffix.lower() in TABLES and path.is_file()))
        return path.resolve() if is_file else None
    except (OSError, ValueError, RuntimeError):  # too long, or of an unknown user
        return None


def _grouped(raw: Raw, groups: Any) -> Raw:
    """`raw` with the groups of its training examples.

    Raises:
        SlimsearchError: there is not one for each training example.
    """
    if groups is None:
        return raw
    found = np.asarray(groups)
    if found.shape != (len(raw.targets),) or found.dtype.kind not in "biufUS":
        raise SlimsearchError(
            f"groups are {found.dtype} of the shape {found.shape}; needed: numbers or texts ({len(raw.targets)},), one "
            "per training example"
        )
    return replace(raw, groups=np.unique(found, return_inverse=True)[1])


def sides(image_size: Any) -> tuple[int, int] | None:
    """(H, W) of ``--image-size``.

    Raises:
        SlimsearchError: it is neither a number of pixels nor WIDTHxHEIGHT.
    """
    if image_size is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,8})(?:x([1-9]\d{0,8}))?", str(image_size))
    if found is None:
        raise SlimsearchError(f"--image-size {image_size} is neither a whole number from 1 nor WIDTHxHEIGHT")
    return int(found[2] or found[1]), int(found[1])


def _named(name: str, root: str | Path | None, download: bool, size: tuple[int, int] | None) -> tuple[Raw, str]:
    """A data set by its name or the path of its folder, and the name by which a run records it."""
    known = built_in_names("slimsearch.evaluators.datasets")
    if name in known:
        source: Source = load_class("data set", name, "slimsearch.evaluators.datasets")()
        return source.read(Path(root).expanduser() if root else None, download), name
    try:
        folder = Path(name).expanduser()
        is_folder = bool(name) and folder.is_dir()
    except (OSError, RuntimeError):  # too long, or of an unknown user
        is_folder = False
    if not is_folder:
        raise SlimsearchError(
            f"unknown data set '{name}'; known: {', '.join(known)}, or the path of an image folder, of arrays (an .npz "
            f"file or a folder with x.npy and y.npy) or of a table ({', '.join(TABLES)})"
        )
    return read_folder(folder, size), folder.resolve().name
