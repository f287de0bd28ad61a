"""Data sets of (input, target) pairs, such as those of PyTorch: all items in two arrays, or on disk."""

from __future__ import annotations

import contextlib
import hashlib
import operator
import os
import reprlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
import psutil

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.evaluators.datasets._conversion import (
    Unsuitable,
    are_images,
    array_of,
    converted,
    in_range,
    is_pil,
    pixels_as_bytes,
)
from slimsearch.evaluators.datasets._dataset import Array, Split
from slimsearch.evaluators.datasets._image_files import pixels_of
from slimsearch.evaluators.datasets._image_folder import different_sizes
from slimsearch.evaluators.datasets._memory import memory_for
from slimsearch.evaluators.datasets._splitting import resize
from slimsearch.evaluators.datasets._stored import Put, is_large, key_of, store
from slimsearch.evaluators.tasks import Classification, LearningTask
from slimsearch.progress import counted

T = TypeVar("T")

_LOOKED_AT = 64  # items by which a data set is known
_BATCH_OF_ITEMS = 16  # that a process reads at a time
_MOST_GROWTH = 2**27  # bytes, of all processes that read items
_LOOKS = 8  # batches between two looks at their memory
_LISTED = 6
# Keys of items, as those of Hugging Face's data sets.
IMAGES = frozenset(("image", "img", "images", "imgs", "pixel_values", "pixels", "picture", "photo", "x", "input"))
LABELS = frozenset(("label", "labels", "target", "targets", "class", "y", "output"))
_PAIR = "needed: an (input, target) pair, or a dict with an input and a target"
FORMS = "a data set is a name, a folder, a file, (inputs, targets), or a PyTorch data set of (input, target) pairs"


def pairs_of(data: Any, skipped: dict[str, None]) -> tuple[int, Callable[[int], tuple[Any, Any]]]:
    """Number of the items of a split, and a function that reads one; adds what it leaves out to `skipped`."""
    if isinstance(data, Mapping | bytes) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        advice = "; pass its .dataset" if hasattr(data, "dataset") else ""
        raise SlimsearchError(f"{FORMS}, not {type(data).__name__}{advice}")

    def pair(index: int) -> tuple[Any, Any]:
        given, target, others = _pair(data[index], index)
        skipped.update(dict.fromkeys(others))
        return given, target

    return _length(data), pair


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
            [key for key in item if isinstance(key, str) and key.lower() in known] for known in (IMAGES, LABELS)
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


def collected(
    count: int, pair: Callable[[int], tuple[Any, Any]], name: str, task: LearningTask,
    image_size: tuple[int, int] | None, input_kind: str, code: Mapping[str, str],
) -> Split:  # fmt: skip
    """The inputs and targets of all pairs in two arrays; images are RGB if one of them is."""
    if count < 1:
        raise SlimsearchError(f"the data set is empty; {FORMS}")
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
                found = converted(found, input_kind, as_images=are_images(found, input_kind))
        except Unsuitable as error:
            raise SlimsearchError(str(error)) from error
    return Split(found, np.array(targets))


def _collected_on_disk(
    count: int, pair: Callable[[int], tuple[Any, Any]], name: str, task: LearningTask,
    image_size: tuple[int, int] | None, input_kind: str, code: Mapping[str, str], *, as_images: bool,
) -> Split:  # fmt: skip
    """As `collected`, read by several processes into the cache, and not again by a run on the same items.

    The items are the same if some of them, spread over the data set, are: all are not read to find that out.
    """
    classes = isinstance(task, Classification)

    def read(index: int) -> tuple[Array, Any]:
        values, target = _item(pair, index, image_size, as_images=as_images, classes=classes)
        return (values if as_images else converted(values[None], input_kind, as_images=False)[0]), target

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
        for index, (values, target) in enumerate(counted("reading items", _in_processes(read, count), count)):
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
            put(index, np.broadcast_to(values, shape)[None])
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
    done = 0
    while done < count:
        for item in _until_memory_grows(read, done, count):
            done += 1
            yield item


def _until_memory_grows(read: Callable[[int], T], first: int, count: int) -> Iterator[T]:
    """Items from `first` on, by processes that end when they hold much more memory than in the beginning.

    A data set in a memory-mapped file, such as one of Hugging Face, holds what was read of it as long as the process
    lives.
    """
    from torch.utils.data import DataLoader

    items: Any = _Items(read, first, count)
    loader: DataLoader[Any] = DataLoader(
        items, batch_size=_BATCH_OF_ITEMS, num_workers=os.cpu_count() or 1, collate_fn=list,
        multiprocessing_context="fork",  # the user's data set need not be picklable
    )  # fmt: skip
    before = 0
    for number, batch in enumerate(loader, start=1):
        for item in batch:
            if isinstance(item, SlimsearchError):
                raise item
            yield item
        if number % _LOOKS == 0:
            held = _memory_of_children()
            before = before or held
            if held - before > _MOST_GROWTH:
                return


def _memory_of_children() -> int:
    """Bytes that the processes which this one has started hold."""
    total = 0
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has ended
            total += child.memory_info().rss
    return total


class _Items(Generic[T]):
    """Items as PyTorch's loader reads them; errors are values, as it would describe them in many lines."""

    def __init__(self, read: Callable[[int], T], first: int, end: int) -> None:
        self._read, self._first, self._end = read, first, end

    def __len__(self) -> int:
        return self._end - self._first

    def __getitem__(self, index: int) -> T | SlimsearchError:
        try:
            return self._read(self._first + index)
        except SlimsearchError as error:
            return error


def _is_image(pair: Callable[[int], tuple[Any, Any]]) -> bool:
    """Whether the first item is an image of bytes or in [0, 1]; an item that cannot be read is refused later."""
    try:
        given = pair(0)[0]
        if is_pil(given):
            return True
        array = array_of(given)
        _one_image(array)
    except (Unsuitable, SlimsearchError):
        return False
    except (Exception, SystemExit):  # of the user's class
        return True
    return array.ndim == 3 or array.dtype == np.uint8 or in_range(array)


def _item(
    pair: Callable[[int], tuple[Any, Any]], index: int, image_size: tuple[int, int] | None, *, as_images: bool,
    classes: bool,
) -> tuple[Array, Any]:  # fmt: skip
    """Input and target of an item: an image (C, H, W) uint8 or an array, and an integer or an array."""
    try:
        given, label = pair(index)
        values = _one_image(given) if as_images else _numbers(given)
        target = _label(label) if classes else array_of(label)
    except (SlimsearchError, MemoryError):
        raise
    except Unsuitable as error:
        raise SlimsearchError(f"item {index} of the data set: {error}") from error
    except (Exception, SystemExit) as error:  # of the user's class
        raise SlimsearchError(f"item {index} of the data set cannot be read: {describe_error(error)}") from error
    if as_images and image_size is not None and values.shape[1:] != image_size:
        values = resize(values[None], image_size)[0]
    return values, target


def _one_image(image: Any) -> Array:
    """(C, H, W) uint8 of an array, a tensor or a PIL image."""
    if is_pil(image):
        try:
            pixels = pixels_of(image)
        except ValueError as error:
            raise Unsuitable(str(error)) from error
    else:
        pixels = array_of(image)
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and pixels.shape[0] not in (1, 3) and pixels.shape[2] in (1, 3):
        pixels = pixels.transpose(2, 0, 1)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or 0 in pixels.shape:
        raise Unsuitable(
            f"the image has the shape {pixels.shape}; needed: (H, W), (C, H, W) or (H, W, C), C being 1 or 3"
        )
    return pixels_as_bytes(pixels)


def _label(label: Any) -> int | str:
    if isinstance(label, str):
        return label
    try:
        found = operator.index(label)
    except (Exception, SystemExit) as error:  # a class of the user's may raise anything
        raise Unsuitable(f"the label is {reprlib.repr(label)}; needed: a whole number from 0, or a name") from error
    if not 0 <= found < sys.maxsize:
        raise Unsuitable(f"the label is {found}; needed: a whole number from 0")
    return found


def _numbers(value: Any) -> Array:
    """The input of an item that is no image, float32 or uint8."""
    array = array_of(value)
    if array.dtype.kind not in "buif":
        raise Unsuitable(f"the input is {array.dtype}; needed: numbers")
    if array.ndim == 0:
        raise Unsuitable("the input is a single number; needed: an array")
    return array if array.dtype == np.uint8 else array.astype(np.float32)
