"""Data sets from Python: arrays, and sequences of (input, target) pairs such as PyTorch data sets."""

from __future__ import annotations

import functools
import hashlib
import logging
import operator
import os
import reprlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from slimsearch.errors import SlimsearchError, describe_error, escaped, first_line
from slimsearch.evaluators.datasets._dataset import Array, Raw, Split
from slimsearch.evaluators.datasets._image_files import pixels_of
from slimsearch.evaluators.datasets._image_folder import different_sizes
from slimsearch.evaluators.datasets._memory import memory_for
from slimsearch.evaluators.datasets._splitting import resize
from slimsearch.evaluators.datasets._stored import Put, is_large, key_of, store
from slimsearch.evaluators.tasks import Classification, LearningTask

T = TypeVar("T")

_log = logging.getLogger(__name__)

_BATCH = 64
_LISTED = 6
_LOOKED_AT = 64  # items by which a data set is known
_BATCH_OF_ITEMS = 16  # that a process reads at a time
# Keys of items, as those of Hugging Face's data sets.
_IMAGES = frozenset(("image", "img", "images", "imgs", "pixel_values", "pixels", "picture", "photo", "x", "input"))
_LABELS = frozenset(("label", "labels", "target", "targets", "class", "y", "output"))
_PIXELS = "needed: uint8, or floats in [0, 1]"
_PAIR = "needed: an (input, target) pair, or a dict with an input and a target"
_FORMS = "a data set is a name, a folder, a file, (inputs, targets), or a PyTorch data set of (input, target) pairs"
_PARTS = {
    "train": "training", "training": "training", "val": "validation", "valid": "validation",
    "validation": "validation", "test": "test",
}  # fmt: skip
INPUT_KINDS = ("auto", "image", "signal", "table")


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
            sets, or a dict with "train", and "validation" or "test", each a data set or ``(inputs, targets)``.
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
    given = {part: _whole(value) for part, value in parts.items()}
    arrays = [one.inputs for one in given.values() if one is not None and not one.listed]
    as_images = all(_are_images(values, input_kind) for values in arrays)
    skipped: dict[str, None] = {}
    splits = {}
    items = functools.partial(
        _collected, name=name, task=task, image_size=image_size, input_kind=input_kind, code=code or {}
    )
    for part, one in given.items():
        if one is None:
            splits[part] = items(*_pairs(parts[part], skipped))
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
    return read_targets(splits, task, _class_names(parts["training"]), notes)


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
    augmentation = "shift" if train.inputs.ndim == 4 and "shift" in task.augmentations else "none"
    return Raw(
        train.inputs, train.targets, together.names, read.get("test"), augmentation, read.get("validation"),
        notes=notes,
    )  # fmt: skip


def inputs_like(values: Array, shape: tuple[int, ...], *, as_bytes: bool) -> Array:
    """New examples in the form in which those of a data set are stored.

    Args:
        values: (N, ...), of `shape` each, without the one channel of grey images and signals, or images with their
            channels last.
        shape: of one example, such as (C, H, W).
        as_bytes: whether the examples of the data set are bytes.

    Raises:
        SlimsearchError: they have another shape, or are no numbers or no pixels.
    """
    if values.dtype.kind not in "buif":
        raise SlimsearchError(f"inputs are {values.dtype}; needed: numbers")
    found = values
    if values.shape[1:] != shape and len(shape) > 1:
        if shape[0] == 1 and values.shape[1:] == shape[1:]:
            found = values[:, None]
        elif len(shape) == 3 and values.shape[1:] == (*shape[1:], shape[0]):
            found = values.transpose(0, 3, 1, 2)
    if found.shape[1:] != shape:
        raise SlimsearchError(f"inputs have the shape {values.shape}; the file takes (N, {', '.join(map(str, shape))})")
    try:
        return _as_bytes(found) if as_bytes else np.ascontiguousarray(found, dtype=np.float32)
    except _Unsuitable as error:
        raise SlimsearchError(str(error)) from error


@dataclass(frozen=True)
class _Whole:
    """A split as ``(inputs, targets)``.

    Attributes:
        inputs: an array, or a sequence of images.
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
        """The split as it is stored, see `_converted`; of arrays only."""
        values = self.inputs
        copies = 0 if values.dtype == np.uint8 and values.flags.c_contiguous else 1
        try:
            with memory_for(name, len(values), values.shape[1:], copies):
                return Split(_converted(values, input_kind, as_images=as_images), self.targets)
        except _Unsuitable as error:
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


def _pairs(data: Any, skipped: dict[str, None]) -> tuple[int, Callable[[int], tuple[Any, Any]]]:
    """Number of the items of a split, and a function that reads one; adds what it leaves out to `skipped`."""
    if isinstance(data, Mapping | bytes) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        advice = "; pass its .dataset" if hasattr(data, "dataset") else ""
        raise SlimsearchError(f"{_FORMS}, not {type(data).__name__}{advice}")

    def pair(index: int) -> tuple[Any, Any]:
        given, target, others = _pair(data[index], index)
        skipped.update(dict.fromkeys(others))
        return given, target

    return _length(data), pair


def _class_names(data: Any) -> tuple[str, ...]:
    try:
        return tuple(map(str, data.classes))
    except (Exception, SystemExit):  # there are none, or they are no sequence
        return ()


def _length(data: Any) -> int:
    try:
        return len(data)
    except (Exception, SystemExit) as error:  # of the user's class
        raise SlimsearchError(f"the data set has no length: {describe_error(error)}") from error


def _pair(item: Any, index: int) -> tuple[Any, Any, list[str]]:
    """Image and label of an item, and what else is in it."""
    if isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1], [f"part {number}" for number in range(3, len(item) + 1)]
    if isinstance(item, Mapping):
        image, label = (
            [key for key in item if isinstance(key, str) and key.lower() in known] for known in (_IMAGES, _LABELS)
        )
        if len(image) == len(label) == 1:
            others = [str(key) for key in item if key not in (*image, *label)]
            return item[image[0]], item[label[0]], others
        found = f"is a dict with the keys {', '.join(map(reprlib.repr, list(item)[:_LISTED]))}"
    elif isinstance(item, tuple | list):
        found = f"has {len(item)} parts ({', '.join(type(part).__name__ for part in item[:_LISTED])})"
    else:
        found = f"is of type {type(item).__name__}"
    raise SlimsearchError(f"item {index} of the data set {found}; {_PAIR}")


def _collected(
    count: int, pair: Callable[[int], tuple[Any, Any]], name: str, task: LearningTask,
    image_size: tuple[int, int] | None, input_kind: str, code: Mapping[str, str],
) -> Split:  # fmt: skip
    """The inputs and targets of all pairs in two arrays; images are RGB if one of them is."""
    if count < 1:
        raise SlimsearchError(f"the data set is empty; {_FORMS}")
    as_images = input_kind == "image" or (input_kind == "auto" and _is_image(pair))
    classes = isinstance(task, Classification)
    try:
        first, target = _item(pair, 0, image_size, as_images=as_images, classes=classes)
    except MemoryError as error:
        raise SlimsearchError("item 0 of the data set does not fit into memory") from error
    if is_large((count, *first.shape), first.dtype):
        return _collected_on_disk(count, pair, name, task, image_size, input_kind, code, as_images=as_images)
    inputs, targets = [first], [target]
    with memory_for(name, count, first.shape, copies=2 * first.itemsize):
        for index in range(1, count):
            given, target = _item(pair, index, image_size, as_images=as_images, classes=classes)
            inputs.append(given)
            targets.append(target)
        if as_images:
            sizes = {(image.shape[1], image.shape[2]) for image in inputs}
            if len(sizes) > 1:
                raise different_sizes(name, sizes)
            channels = max(len(image) for image in inputs)
            inputs = [np.broadcast_to(image, (channels, *image.shape[1:])) for image in inputs]
        for what, arrays in (("input", inputs), ("target", [np.asarray(target) for target in targets])):
            shapes = [array.shape for array in arrays]
            if (odd := next((index for index, shape in enumerate(shapes) if shape != shapes[0]), None)) is not None:
                raise SlimsearchError(
                    f"item {odd} of the data set: the {what} has the shape {shapes[odd]}, that of item 0 {shapes[0]}"
                )
        try:
            found = np.stack(inputs)
            if not as_images:
                found = _converted(found, input_kind, as_images=_are_images(found, input_kind))
        except _Unsuitable as error:
            raise SlimsearchError(str(error)) from error
    return Split(found, np.array(targets))


def _collected_on_disk(
    count: int, pair: Callable[[int], tuple[Any, Any]], name: str, task: LearningTask,
    image_size: tuple[int, int] | None, input_kind: str, code: Mapping[str, str], *, as_images: bool,
) -> Split:  # fmt: skip
    """As `_collected`, read by several processes into the cache, and not again by a run on the same items.

    The items are the same if some of them, spread over the data set, are: all are not read to find that out.
    """
    classes = isinstance(task, Classification)

    def read(index: int) -> tuple[Array, Any]:
        values, target = _item(pair, index, image_size, as_images=as_images, classes=classes)
        return (values if as_images else _converted(values[None], input_kind, as_images=False)[0]), target

    digest = hashlib.sha256()
    shapes = []
    for index in np.linspace(0, count - 1, min(count, _LOOKED_AT)):
        values, target = read(int(index))
        digest.update(np.ascontiguousarray(values).data)
        digest.update(repr(np.asarray(target).tolist()).encode())
        shapes.append(values.shape)
    shape = max(shapes, key=lambda shape: shape[0])  # images are RGB if one of them is
    dtype, of_target = values.dtype, np.shape(target)

    def fill(put: Put) -> dict[str, Any]:
        targets: list[Any] = []
        for index, (values, target) in enumerate(_in_processes(read, count)):
            same = values.shape == shape or (as_images and values.shape == (1, *shape[1:]))
            if not same and as_images and values.shape[1:] != shape[1:]:
                raise different_sizes(name, {values.shape[1:], shape[1:]})
            if not same:
                raise SlimsearchError(
                    f"item {index} of the data set: the input has the shape {values.shape}, that of others {shape}"
                )
            if values.dtype != dtype:
                raise SlimsearchError(f"item {index} of the data set is {values.dtype}, others are {dtype}")
            if np.shape(target) != of_target:
                raise SlimsearchError(f"item {index} of the data set: the target has another shape than others")
            put(index, np.broadcast_to(values, shape))
            targets.append(target)
        return {"targets": np.array(targets)}

    key = key_of(
        "items", dict(code), count, image_size, input_kind, as_images, classes, list(shape), digest.hexdigest()
    )
    found, facts = store(key, name, (count, *shape), dtype, fill)
    return Split(found, facts["targets"])


def _in_processes(read: Callable[[int], T], count: int) -> Iterator[T]:
    """The items 0 to `count`, each read in one of several processes.

    Raises:
        SlimsearchError: an item cannot be read.
    """
    from torch.utils.data import DataLoader

    items: Any = _Items(read, count)
    loader: DataLoader[Any] = DataLoader(
        items, batch_size=_BATCH_OF_ITEMS, num_workers=os.cpu_count() or 1, collate_fn=list,
        multiprocessing_context="fork",  # the user's data set need not be picklable
    )  # fmt: skip
    for batch in loader:
        for item in batch:
            if isinstance(item, SlimsearchError):
                raise item
            yield item


class _Items(Generic[T]):
    """Items as PyTorch's loader reads them; errors are values, as it would describe them in many lines."""

    def __init__(self, read: Callable[[int], T], count: int) -> None:
        self._read, self._count = read, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> T | SlimsearchError:
        try:
            return self._read(index)
        except SlimsearchError as error:
            return error


def _is_image(pair: Callable[[int], tuple[Any, Any]]) -> bool:
    """Whether the first item is an image of bytes or in [0, 1]; an item that cannot be read is refused later."""
    try:
        given = pair(0)[0]
        if _is_pil(given):
            return True
        array = _array(given)
        _one_image(array)
    except (_Unsuitable, SlimsearchError):
        return False
    except (Exception, SystemExit):  # of the user's class
        return True
    return array.ndim == 3 or array.dtype == np.uint8 or _in_range(array)


def _item(
    pair: Callable[[int], tuple[Any, Any]], index: int, image_size: tuple[int, int] | None, *, as_images: bool,
    classes: bool,
) -> tuple[Array, Any]:  # fmt: skip
    """Input and target of an item: an image (C, H, W) uint8 or an array, and an integer or an array."""
    try:
        given, label = pair(index)
        values = _one_image(given) if as_images else _numbers(given)
        target = _label(label) if classes else _array(label)
    except (SlimsearchError, MemoryError):
        raise
    except _Unsuitable as error:
        raise SlimsearchError(f"item {index} of the data set: {error}") from error
    except (Exception, SystemExit) as error:  # of the user's class
        raise SlimsearchError(f"item {index} of the data set cannot be read: {describe_error(error)}") from error
    if as_images and image_size is not None and values.shape[1:] != image_size:
        values = resize(values[None], image_size)[0]
    return values, target


class _Unsuitable(ValueError):
    """An image or label that is not of a form that is read; the message says which is."""


def _one_image(image: Any) -> Array:
    """(C, H, W) uint8 of an array, a tensor or a PIL image."""
    if _is_pil(image):
        try:
            pixels = pixels_of(image)
        except ValueError as error:
            raise _Unsuitable(str(error)) from error
    else:
        pixels = _array(image)
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and pixels.shape[0] not in (1, 3) and pixels.shape[2] in (1, 3):
        pixels = pixels.transpose(2, 0, 1)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or 0 in pixels.shape:
        raise _Unsuitable(
            f"the image has the shape {pixels.shape}; needed: (H, W), (C, H, W) or (H, W, C), C being 1 or 3"
        )
    return _as_bytes(pixels)


def _label(label: Any) -> int | str:
    if isinstance(label, str):
        return label
    try:
        found = operator.index(label)
    except (Exception, SystemExit) as error:  # a class of the user's may raise anything
        raise _Unsuitable(f"the label is {reprlib.repr(label)}; needed: a whole number from 0, or a name") from error
    if not 0 <= found < sys.maxsize:
        raise _Unsuitable(f"the label is {found}; needed: a whole number from 0")
    return found


def _is_pil(value: Any) -> bool:
    from PIL import Image

    return isinstance(value, Image.Image)


def _array(value: Any) -> Array:
    """An array of any array, tensor or sequence; of a tensor also on a GPU or with a gradient."""
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value
    elif isinstance(value, int | float):
        return np.asarray(value)
    elif not (isinstance(value, Sequence) or hasattr(value, "__array__")):  # NumPy may iterate over it without end
        raise _Unsuitable(f"{type(value).__name__} is not an array")
    return np.asarray(value)


def _numbers(value: Any) -> Array:
    """The input of an item that is no image, float32 or uint8."""
    array = _array(value)
    if array.dtype.kind not in "buif":
        raise _Unsuitable(f"the input is {array.dtype}; needed: numbers")
    if array.ndim == 0:
        raise _Unsuitable("the input is a single number; needed: an array")
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def _whole(value: Any) -> _Whole | None:
    """A split given as ``(inputs, targets)``; None if it is given item by item.

    Raises:
        SlimsearchError: they are no arrays, or of different length.
    """
    if not (isinstance(value, tuple | list) and len(value) == 2):
        return None
    inputs, targets = value
    try:
        found = _array(targets)
        listed = (
            isinstance(inputs, Sequence) and len(inputs) > 0 and (_is_pil(inputs[0]) or hasattr(inputs[0], "shape"))
        )
        values = inputs if listed else _array(inputs)
    except (Exception, SystemExit) as error:  # of a user's class
        raise SlimsearchError(f"inputs or targets are not an array: {first_line(error)}; {_FORMS}") from error
    count = len(values) if listed or values.ndim else 0
    if not listed and values.dtype == object:
        raise SlimsearchError(f"inputs are of type {type(inputs).__name__}, not an array; {_FORMS}")
    if found.ndim == 0 or len(found) != count or count == 0:
        raise SlimsearchError(f"targets are {found.dtype} of the shape {found.shape}; needed: {count}, one per example")
    return _Whole(values, found, listed)


def _are_images(values: Array, input_kind: str) -> bool:
    """Whether inputs (N, ...) are stored as images of bytes."""
    if input_kind not in ("auto", "image") or values.ndim not in (3, 4) or values.dtype.kind not in "buif":
        return False
    shape = values.shape
    channels = 1 if values.ndim == 3 else shape[3] if _channels_last(shape) else shape[1]
    return 0 not in shape and channels in (1, 3) and (input_kind == "image" or _in_range(values))


def _converted(values: Array, input_kind: str, *, as_images: bool) -> Array:
    """Inputs (N, ...) of any kind as they are stored: images of 1 or 3 channels as bytes, channels first.

    Args:
        values: the inputs.
        input_kind: see `from_arrays`.
        as_images: see `_are_images`.
    """
    dimensions = {"image": (3, 4), "signal": (2, 3), "table": (2,)}.get(input_kind)
    if values.dtype.kind not in "buif":
        raise _Unsuitable(f"inputs are {values.dtype}; needed: numbers")
    if (dimensions is not None and values.ndim not in dimensions) or values.ndim < 2 or 0 in values.shape:
        raise _Unsuitable(
            f"inputs have the shape {values.shape}; needed: images (N, H, W), (N, C, H, W) or (N, H, W, C), signals "
            "(N, C, L), tables (N, F), or other examples (N, C, ...)"
        )
    if values.ndim == 4:
        values = values.transpose(0, 3, 1, 2) if _channels_last(values.shape) else values
    elif (values.ndim == 3 and as_images) or (values.ndim == 2 and input_kind == "signal"):
        values = values[:, None]
    if as_images:
        return _as_bytes(values)
    if values.dtype == np.uint8 and values.ndim > 2:
        return np.ascontiguousarray(values)
    return np.ascontiguousarray(values, dtype=np.float32)


def _channels_last(shape: Sequence[int]) -> bool:
    """Whether images of the shape (N, ?, ?, ?) have their channels last: 1 or 3 of them, or fewer than in front."""
    first, last = shape[1], shape[3]
    return first not in (1, 3) and (last in (1, 3) or last < first)


def _in_range(values: Array) -> bool:
    """Whether numbers can be pixels: bytes, booleans, or floats in [0, 1]; nan is none."""
    if values.dtype == np.uint8 or values.dtype.kind == "b":
        return True
    return bool(values.min() >= 0 and values.max() <= (1 if values.dtype.kind == "f" else 255))


def _as_bytes(pixels: Array) -> Array:
    """Images as uint8, contiguous; booleans and floats become 0 to 255."""
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    kind = pixels.dtype.kind
    if kind not in "buif":
        raise _Unsuitable(f"images are {pixels.dtype}; {_PIXELS}")
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= (1 if kind == "f" else 255)):  # NaN compares false
        advice = (
            " (torchvision's ToTensor gives them; leave out Normalize), or input_kind='signal'" if kind == "f"
            else ", such as images / 65535"
        )  # fmt: skip
        raise _Unsuitable(f"images are {pixels.dtype} from {low} to {high}; {_PIXELS}{advice}")
    found = np.empty(pixels.shape, dtype=np.uint8)
    for start in range(0, len(pixels), _BATCH):
        batch = pixels[start : start + _BATCH]
        found[start : start + _BATCH] = np.rint(batch * 255) if kind in "bf" else batch
    return found
