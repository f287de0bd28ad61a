"""Data sets from Python: arrays, and sequences of (image, label) pairs such as PyTorch data sets."""

from __future__ import annotations

import logging
import operator
import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError, describe_error, escaped, first_line
from slimsearch.evaluators.datasets._dataset import Array, Raw, Split
from slimsearch.evaluators.datasets._image_files import pixels_of
from slimsearch.evaluators.datasets._image_folder import different_sizes
from slimsearch.evaluators.datasets._memory import memory_for
from slimsearch.evaluators.datasets._splitting import resize

_log = logging.getLogger(__name__)

_BATCH = 64
_LISTED = 6
# Keys of items, as those of Hugging Face's data sets.
_IMAGES = frozenset(("image", "img", "images", "imgs", "pixel_values", "pixels", "picture", "photo", "x", "input"))
_LABELS = frozenset(("label", "labels", "target", "targets", "class", "y", "output"))
_PIXELS = "needed: uint8, or floats in [0, 1]"
_PAIR = "needed: an (image, label) pair, or a dict with an image and a label"
_FORMS = "a data set is a name, a folder, (images, labels), or a PyTorch data set of (image, label) pairs"


def from_arrays(data: Any, name: str, image_size: int | None = None) -> Raw:
    """A data set from Python values.

    Args:
        data: ``(images, labels)``, ``(images, labels, test_images, test_labels)``, or a sequence of ``(image, label)``
            pairs or of dicts with an image and a label, such as a PyTorch data set. Further parts of an item are
            skipped. Images are uint8, floats in [0, 1] or PIL images; (N, H, W), (N, C, H, W)
            or (N, H, W, C) with 1 or 3 channels.
        name: of the data set, for messages.
        image_size: side in pixels that the images of pairs are resized to; None if they have one size.

    Raises:
        SlimsearchError: `data` has another form, or raises an exception.
    """
    notes: tuple[str, ...] = ()
    if isinstance(data, tuple | list) and len(data) in (2, 4):
        splits = [_as_split(data[i], data[i + 1], name, image_size) for i in range(0, len(data), 2)]
    elif isinstance(data, Mapping | bytes) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        advice = "; pass its .dataset" if hasattr(data, "dataset") else ""
        raise SlimsearchError(f"{_FORMS}, not {type(data).__name__}{advice}")
    else:
        skipped: dict[str, None] = {}

        def pair(index: int) -> tuple[Any, Any]:
            image, label, others = _pair(data[index], index)
            skipped.update(dict.fromkeys(others))
            return image, label

        splits = [_collected(_length(data), pair, name, image_size)]
        if skipped:
            notes = (f"of each item, an image and a label are read, and skipped: {escaped(', '.join(skipped))}",)
            _log.warning("%s", notes[0])
    highest = int(max(split.labels.max() for split in splits))
    if highest >= sum(map(len, splits)):
        raise SlimsearchError(
            f"label {highest} is above the number of images; labels count from 0 without gaps: "
            "numpy.unique(labels, return_inverse=True)[1]"
        )
    return Raw(
        splits[0].images, splits[0].labels, _class_names(data, highest + 1),
        test=splits[1] if len(splits) == 2 else None, notes=notes,
    )  # fmt: skip


def _class_names(data: Any, count: int) -> tuple[str, ...]:
    try:
        names = tuple(map(str, data.classes))
    except (Exception, SystemExit):  # there are none, or they are no sequence
        names = ()
    return names if len(names) == count else tuple(map(str, range(count)))


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


def _collected(count: int, pair: Callable[[int], tuple[Any, Any]], name: str, image_size: int | None) -> Split:
    """The images of all pairs in one array; RGB if one of them is."""
    if count < 1:
        raise SlimsearchError(f"the data set is empty; {_FORMS}")
    try:
        first, label = _item(pair, 0, image_size)
    except MemoryError as error:
        raise SlimsearchError("item 0 of the data set does not fit into memory") from error
    images, labels = [first], [label]
    with memory_for(name, count, first.shape, copies=2):
        for index in range(1, count):
            image, label = _item(pair, index, image_size)
            images.append(image)
            labels.append(label)
        sizes = {(image.shape[1], image.shape[2]) for image in images}
        if len(sizes) > 1:
            raise different_sizes(name, sizes)
        channels = max(len(image) for image in images)
        found = np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for image in images])
    return Split(found, np.array(labels, dtype=np.int64))


def _item(pair: Callable[[int], tuple[Any, Any]], index: int, image_size: int | None) -> tuple[Array, int]:
    """Image and label of an item: (C, H, W) uint8 and an integer."""
    try:
        image, label = pair(index)
        pixels, number = _one_image(image), _label(label)
    except (SlimsearchError, MemoryError):
        raise
    except _Unsuitable as error:
        raise SlimsearchError(f"item {index} of the data set: {error}") from error
    except (Exception, SystemExit) as error:  # of the user's class
        raise SlimsearchError(f"item {index} of the data set cannot be read: {describe_error(error)}") from error
    if image_size is not None and pixels.shape[1:] != (image_size, image_size):
        pixels = resize(pixels[None], image_size)[0]
    return pixels, number


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


def _label(label: Any) -> int:
    try:
        found = operator.index(label)
    except (Exception, SystemExit) as error:  # a class of the user's may raise anything
        raise _Unsuitable(f"the label is {reprlib.repr(label)}; needed: a whole number from 0") from error
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
    elif not (isinstance(value, Sequence) or hasattr(value, "__array__")):  # NumPy may iterate over it without end
        raise _Unsuitable(f"{type(value).__name__} is not an array")
    return np.asarray(value)


def _as_split(images: Any, labels: Any, name: str, image_size: int | None) -> Split:
    """A split of whole arrays; of sequences of images, which may have several sizes, see `_collected`."""
    try:
        targets = _array(labels)
        one_by_one = (
            isinstance(images, Sequence) and len(images) > 0 and (_is_pil(images[0]) or hasattr(images[0], "shape"))
        )
        pixels: Array = np.empty(0) if one_by_one else _array(images)
    except (Exception, SystemExit) as error:  # of a user's class
        raise SlimsearchError(f"images or labels are not an array: {first_line(error)}; {_FORMS}") from error
    count = len(images) if one_by_one else pixels.shape[0] if pixels.ndim else 0
    if not one_by_one and pixels.dtype == object:
        raise SlimsearchError(f"images are of type {type(images).__name__}, not an array; {_FORMS}")
    if targets.shape != (count,) or not np.issubdtype(targets.dtype, np.integer) or count == 0:
        raise SlimsearchError(f"labels are {targets.dtype} of the shape {targets.shape}; needed: {count} integers")
    if targets.min() < 0:
        raise SlimsearchError(f"label {targets.min()} is negative; labels count from 0")
    if one_by_one:
        return _collected(count, lambda index: (images[index], targets[index]), name, image_size)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.ndim == 4 and pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        pixels = pixels.transpose(0, 3, 1, 2)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or 0 in pixels.shape:
        raise SlimsearchError(
            f"images have the shape {pixels.shape}; needed: (N, H, W), (N, C, H, W) or (N, H, W, C), C being 1 or 3"
        )
    try:
        copies = 0 if pixels.dtype == np.uint8 and pixels.flags.c_contiguous else 1
        with memory_for(name, count, pixels.shape[1:], copies):
            return Split(_as_bytes(pixels), targets.astype(np.int64))
    except _Unsuitable as error:
        raise SlimsearchError(str(error)) from error


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
            " (torchvision's ToTensor gives them; leave out Normalize)" if kind == "f" else ", such as images / 65535"
        )
        raise _Unsuitable(f"images are {pixels.dtype} from {low} to {high}; {_PIXELS}{advice}")
    found = np.empty(pixels.shape, dtype=np.uint8)
    for start in range(0, len(pixels), _BATCH):
        batch = pixels[start : start + _BATCH]
        found[start : start + _BATCH] = np.rint(batch * 255) if kind in "bf" else batch
    return found
