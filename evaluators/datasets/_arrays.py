"""Data sets from Python: their splits, as arrays or as sequences of (input, target) pairs."""

from __future__ import annotations

import functools
import logging
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError, escaped, first_line
from slimsearch.evaluators.datasets._array_on_disk import ArrayOnDisk, stored_arrays
from slimsearch.evaluators.datasets._conversion import Unsuitable, are_images, array_of, converted, is_pil
from slimsearch.evaluators.datasets._dataset import Array, Raw, Split
from slimsearch.evaluators.datasets._items import FORMS, collected, pairs_of
from slimsearch.evaluators.datasets._memory import memory_for
from slimsearch.evaluators.datasets._several_inputs import fields_of, packed
from slimsearch.evaluators.datasets._stored import StoredInputs
from slimsearch.evaluators.tasks import Classification, LearningTask

_log = logging.getLogger(__name__)

_LISTED = 6
_PARTS = {
    "train": "training", "training": "training", "val": "validation", "valid": "validation",
    "validation": "validation", "test": "test",
}  # fmt: skip
INPUT_KINDS = ("auto", "image", "signal", "table")
"""Values of ``--input``."""


def from_arrays(
    data: Any,
    name: str,
    task: LearningTask,
    image_size: tuple[int, int] | None = None,
    input_kind: str = "auto",
    code: Mapping[str, str] | None = None,
) -> Raw:
    """A data set from Python values.

    Args:
        data: ``(inputs, targets)``, ``(inputs, targets, test_inputs, test_targets)``, or a sequence of ``(input,
            target)`` pairs or of dicts with an input and a target, such as a PyTorch data set. Further parts of an item
            are skipped. For splits of the user: ``(train, test)`` or ``(train, validation, test)`` of PyTorch data
            sets, or a dict with "train", and "validation" or "test", each a data set or ``(inputs, targets)``. The
            inputs may be a dict of arrays, and those of an item a dict or a tuple: see `fields_of`.
        name: of the data set, for messages.
        task: what is learned; reads the targets.
        image_size: (H, W) that the images of pairs are resized to; None if they have one size.
        input_kind: "image": grey (N, H, W), or (N, C, H, W) or (N, H, W, C), bytes or floats in [0, 1] if there are 1
            or 3 channels; "signal": (N, C, L) or (N, L); "table": (N, F). "auto": by the shape, and for three
            dimensions by the values: bytes and floats in [0, 1] are images, other numbers signals. Other inputs keep
            their shape (N, ...) and become float32.
        code: hashes of the code that `data` comes from, as far as they are known: with other code, many items are read
            anew.

    Raises:
        SlimsearchError: `data` has another form, or raises an exception.
    """
    parts = _parts(data)
    fields = fields_of(parts["training"])
    if fields:
        if image_size is not None or input_kind not in ("auto", "table"):
            option = "--image-size" if image_size is not None else "--input-kind"
            names = ", ".join(field.name for field in fields)
            raise SlimsearchError(f"{option} is for examples of one input; these have {names}")
        parts, input_kind = {part: packed(value, fields) for part, value in parts.items()}, "table"
    given = {part: _whole(value) for part, value in parts.items()}
    arrays = [one.inputs for one in given.values() if one is not None and isinstance(one.inputs, np.ndarray)]
    as_images = all(are_images(values, input_kind) for values in arrays)
    large = {part: one for part, one in given.items() if one is not None and isinstance(one.inputs, ArrayOnDisk)}
    stored: dict[str, StoredInputs] = {}
    if large:
        sizes = {part: None if one.targets.ndim == 3 else image_size for part, one in large.items()}
        stored, as_images = stored_arrays(
            {part: one.inputs for part, one in large.items()}, name, input_kind, sizes, others_are_images=as_images
        )
    skipped: dict[str, None] = {}
    splits = {}
    items = functools.partial(
        collected, name=name, task=task, image_size=image_size, input_kind=input_kind, code=code or {}
    )
    for part, one in given.items():
        if one is None:
            splits[part] = items(*pairs_of(parts[part], skipped))
        elif part in stored:
            splits[part] = Split(stored[part], one.targets)
        elif one.listed:
            splits[part] = items(len(one.targets), one.item)
        else:
            splits[part] = one.converted(name, input_kind, as_images=as_images)
    notes: tuple[str, ...] = ()
    if skipped:
        notes = (f"of each item, an input and a target are read, and skipped: {escaped(', '.join(skipped))}",)
        _log.warning("%s", notes[0])
    shape = splits["training"].inputs.shape
    if input_kind == "auto" and len(shape) == 3 and shape[1] == shape[2]:
        notes += (
            f"examples of {shape[1]}x{shape[2]} numbers outside of 0 to 1 are read as signals (channels, length); grey "
            "images are bytes, or floats in [0, 1]",
        )
        _log.warning("%s", notes[-1])
    return replace(read_targets(splits, task, _class_names(parts["training"]), notes), fields=fields)


def read_targets(
    splits: Mapping[str, Split], task: LearningTask, names: Sequence[str] = (), notes: tuple[str, ...] = ()
) -> Raw:
    """The splits of a source with their targets as `task` reads them; texts are names of classes.

    Args:
        splits: "training", and "validation" and "test" where the source has them.
        task: what is learned.
        names: of the outputs, if the source has some.
        notes: lines about the reading.

    Raises:
        SlimsearchError: the targets are none of the task.
    """
    targets = np.concatenate([split.targets for split in splits.values()])
    if isinstance(task, Classification) and targets.dtype.kind in "US":
        classes, targets = np.unique(targets.astype(str), return_inverse=True)
        names = tuple(classes.tolist())
    together = task.read(targets, names)
    ends = np.cumsum([len(split) for split in splits.values()])[:-1]
    read = {
        part: Split(split.inputs, values)
        for (part, split), values in zip(splits.items(), np.split(together.values, ends), strict=True)
    }  # fmt: skip
    train = read["training"]
    shifted = train.inputs.ndim == 4 and "shift" in task.augmentations and not task.targets_move
    augmentation = "shift" if shifted else "none"
    return Raw(
        train.inputs, train.targets, together.names, read.get("test"), augmentation, read.get("validation"),
        notes=notes,
    )  # fmt: skip


@dataclass(frozen=True)
class _Whole:
    """A split as ``(inputs, targets)``.

    Attributes:
        inputs: an array, in memory or on disk, or a sequence of images.
        targets: (N, ...).
        listed: whether the inputs are a sequence of images, which may have several sizes.
    """

    inputs: Any
    targets: Array
    listed: bool

    def item(self, index: int) -> tuple[Any, Any]:
        """Input and target at a position."""
        return self.inputs[index], self.targets[index]

    def converted(self, name: str, input_kind: str, *, as_images: bool) -> Split:
        """The split as it is stored, see `converted`; of arrays only."""
        values = self.inputs
        copied = 0 if values.dtype == np.uint8 and values.flags.c_contiguous else 1 if as_images else 4  # bytes
        try:
            with memory_for(name, len(values), values.shape[1:], copied):
                return Split(converted(values, input_kind, as_images=as_images), self.targets)
        except Unsuitable as error:
            raise SlimsearchError(str(error)) from error


def _parts(data: Any) -> dict[str, Any]:
    """The value of each split: ``(inputs, targets)``, or a sequence of pairs."""
    if isinstance(data, Mapping):
        named = {_PARTS.get(key, key) if isinstance(key, str) else key: value for key, value in data.items()}
        if "training" in named and len(named) == len(data) and set(named) <= set(_PARTS.values()):
            return {part: named[part] for part in ("training", "validation", "test") if part in named}
        listed = ", ".join(map(reprlib.repr, list(data)[:_LISTED]))
        raise SlimsearchError(f"a dict of splits has the keys train, and validation or test; this one has {listed}")
    if isinstance(data, tuple | list) and len(data) in (2, 3) and all(map(_is_data_set, data)):
        names = ("training", "validation", "test") if len(data) == 3 else ("training", "test")
        return dict(zip(names, data, strict=True))
    if isinstance(data, tuple | list) and len(data) in (2, 4):
        return {
            part: (data[start], data[start + 1]) for part, start in (("training", 0), ("test", 2)) if start < len(data)
        }
    return {"training": data}


def _is_data_set(value: Any) -> bool:
    """Whether a value is a PyTorch data set or one like it, and no array, list or dict."""
    return (
        hasattr(value, "__getitem__") and hasattr(value, "__len__") and not hasattr(value, "__array__")
        and not isinstance(value, Sequence | Mapping)
    )  # fmt: skip


def _class_names(data: Any) -> tuple[str, ...]:
    try:
        return tuple(map(str, data.classes))
    except (Exception, SystemExit):  # there are none, or they are no sequence
        return ()


def _whole(value: Any) -> _Whole | None:
    """A split given as ``(inputs, targets)``; None if it is given item by item.

    Raises:
        SlimsearchError: they are no arrays, or of different length.
    """
    if not (isinstance(value, tuple | list) and len(value) == 2):
        return None
    inputs, targets = value
    try:
        found = array_of(targets)
        listed = isinstance(inputs, Sequence) and len(inputs) > 0 and (is_pil(inputs[0]) or hasattr(inputs[0], "shape"))
        values = inputs if listed or isinstance(inputs, ArrayOnDisk) else array_of(inputs)
    except (Exception, SystemExit) as error:  # of a user's class
        raise SlimsearchError(f"inputs or targets are not an array: {first_line(error)}; {FORMS}") from error
    count = len(values) if listed or values.ndim else 0
    if not listed and values.dtype == object:
        raise SlimsearchError(f"inputs are of type {type(inputs).__name__}, not an array; {FORMS}")
    if found.ndim == 0 or len(found) != count or count == 0:
        raise SlimsearchError(f"targets are {found.dtype} of the shape {found.shape}; needed: {count}, one per example")
    return _Whole(values, found, listed)
