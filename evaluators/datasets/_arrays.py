"""A data set handed over from Python: arrays, or a PyTorch data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets._dataset import Array, Raw, Split


def read(data: Any) -> Raw:
    """What `data` holds, as a source would have read it.

    Args:
        data: ``(images, labels)``, ``(images, labels, test_images, test_labels)``, or anything with ``len`` and
            integer indices that gives ``(image, label)`` pairs, such as a PyTorch data set. Images are uint8, or
            floats in [0, 1]; (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels.

    Raises:
        SlimsearchError: it is none of these.
    """
    if isinstance(data, tuple | list) and len(data) in (2, 4):
        parts = [(data[i], data[i + 1]) for i in range(0, len(data), 2)]
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        pairs = [data[index] for index in range(len(data))]
        parts = [(np.stack([np.asarray(image) for image, _ in pairs]), [int(label) for _, label in pairs])]
    else:
        raise SlimsearchError(
            f"a data set is a name, a folder, (images, labels) or a PyTorch data set, not {type(data).__name__}"
        )
    splits = [_split(images, labels) for images, labels in parts]
    classes = int(max(split.labels.max() for split in splits)) + 1
    names = getattr(data, "classes", None)
    class_names = tuple(map(str, names)) if names is not None and len(names) == classes else None
    return Raw(
        splits[0].images, splits[0].labels, class_names or tuple(map(str, range(classes))),
        test=splits[1] if len(splits) == 2 else None,
    )  # fmt: skip


def _split(images: Any, labels: Any) -> Split:
    pixels = np.asarray(images)
    targets = np.asarray(labels)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.ndim == 4 and pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        pixels = pixels.transpose(0, 3, 1, 2)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise SlimsearchError(
            f"images have the shape {pixels.shape}; needed: (N, H, W), (N, C, H, W) or (N, H, W, C), C being 1 or 3"
        )
    if targets.shape != (len(pixels),) or not np.issubdtype(targets.dtype, np.integer) or len(targets) == 0:
        raise SlimsearchError(
            f"labels are {targets.dtype} of the shape {targets.shape}; needed: {len(pixels)} integers"
        )
    if targets.min() < 0:
        raise SlimsearchError(f"label {targets.min()} is negative; labels count from 0")
    return Split(np.ascontiguousarray(_bytes(pixels)), targets.astype(np.int64))


def _bytes(pixels: Array) -> Array:
    if pixels.dtype == np.uint8:
        return pixels
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > (1 if pixels.dtype.kind == "f" else 255):
        raise SlimsearchError(
            f"images are {pixels.dtype} from {pixels.min()} to {pixels.max()}; needed: uint8, or floats in [0, 1]"
        )
    scale = 255 if pixels.dtype.kind == "f" else 1
    return (pixels * scale).round().astype(np.uint8)
