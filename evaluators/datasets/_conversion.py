"""Conversion of arrays to the form in which inputs are stored: images as bytes, anything else as float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets._dataset import Array

_BATCH = 64
_PIXELS = "needed: uint8, or floats in [0, 1]"


class Unsuitable(ValueError):
    """An image or label that is not of a form that is read; the message says which is."""


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
        return pixels_as_bytes(found) if as_bytes else np.ascontiguousarray(found, dtype=np.float32)
    except Unsuitable as error:
        raise SlimsearchError(str(error)) from error


def is_pil(value: Any) -> bool:
    from PIL import Image

    return isinstance(value, Image.Image)


def array_of(value: Any) -> Array:
    """An array of any array, tensor or sequence; of a tensor also on a GPU or with a gradient."""
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value
    elif isinstance(value, int | float):
        return np.asarray(value)
    elif not (isinstance(value, Sequence) or hasattr(value, "__array__")):  # NumPy may iterate over it without end
        raise Unsuitable(f"{type(value).__name__} is not an array")
    return np.asarray(value)


def are_images(values: Array, input_kind: str) -> bool:
    """Whether inputs (N, ...) are stored as images of bytes."""
    if input_kind not in ("auto", "image") or values.ndim not in (3, 4) or values.dtype.kind not in "buif":
        return False
    shape = values.shape
    channels = 1 if values.ndim == 3 else shape[3] if _channels_last(shape) else shape[1]
    return 0 not in shape and channels in (1, 3) and (input_kind == "image" or in_range(values))


def converted(values: Array, input_kind: str, *, as_images: bool) -> Array:
    """Inputs (N, ...) of any kind as they are stored: images of 1 or 3 channels as bytes, channels first.

    Args:
        values: the inputs.
        input_kind: see `from_arrays`.
        as_images: see `are_images`.
    """
    dimensions = {"image": (3, 4), "signal": (2, 3), "table": (2,)}.get(input_kind)
    if values.dtype.kind not in "buif":
        raise Unsuitable(f"inputs are {values.dtype}; needed: numbers")
    if (dimensions is not None and values.ndim not in dimensions) or values.ndim < 2 or 0 in values.shape:
        raise Unsuitable(
            f"inputs have the shape {values.shape}; needed: images (N, H, W), (N, C, H, W) or (N, H, W, C), signals "
            "(N, C, L), tables (N, F), or other examples (N, C, ...)"
        )
    if values.ndim == 4:
        values = values.transpose(0, 3, 1, 2) if _channels_last(values.shape) else values
    elif (values.ndim == 3 and as_images) or (values.ndim == 2 and input_kind == "signal"):
        values = values[:, None]
    if as_images:
        return pixels_as_bytes(values)
    if values.dtype == np.uint8 and values.ndim > 2:
        return np.ascontiguousarray(values)
    return np.ascontiguousarray(values, dtype=np.float32)


def _channels_last(shape: Sequence[int]) -> bool:
    """Whether images of the shape (N, ?, ?, ?) have their channels last: 1 or 3 of them, or fewer than in front."""
    first, last = shape[1], shape[3]
    return first not in (1, 3) and (last in (1, 3) or last < first)


def in_range(values: Array) -> bool:
    """Whether numbers can be pixels: bytes, booleans, or floats in [0, 1]; nan is none."""
    if values.dtype == np.uint8 or values.dtype.kind == "b":
        return True
    return bool(values.min() >= 0 and values.max() <= (1 if values.dtype.kind == "f" else 255))


def pixels_as_bytes(pixels: Array) -> Array:
    """Images as uint8, contiguous; booleans and floats become 0 to 255."""
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    kind = pixels.dtype.kind
    if kind not in "buif":
        raise Unsuitable(f"images are {pixels.dtype}; {_PIXELS}")
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= (1 if kind == "f" else 255)):  # NaN compares false
        advice = (
            " (torchvision's ToTensor gives them; leave out Normalize), or input_kind='signal'" if kind == "f"
            else ", such as images / 65535"
        )  # fmt: skip
        raise Unsuitable(f"images are {pixels.dtype} from {low} to {high}; {_PIXELS}{advice}")
    found = np.empty(pixels.shape, dtype=np.uint8)
    for start in range(0, len(pixels), _BATCH):
        batch = pixels[start : start + _BATCH]
        found[start : start + _BATCH] = np.rint(batch * 255) if kind in "bf" else batch
    return found
