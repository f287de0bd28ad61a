"""Images as small pictures: pixels, and URLs for pages and notebooks."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_LARGEST_SIDE = 64  # in pixels; larger images are made smaller


def are_pictures(shape: tuple[int, ...]) -> bool:
    """Whether examples of a shape are images (C, H, W), grey or in color."""
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape) > 0


def pixels(images: Any) -> Array:
    """(N, C, H, W) -> (N, H, W, 3) uint8, each stretched to the whole range."""
    values = np.asarray(images, dtype=np.float32)
    low, high = (limit(values, axis=(1, 2, 3), keepdims=True) for limit in (np.min, np.max))
    stretched = np.nan_to_num((values - low) / np.maximum(high - low, 1e-9) * 255).astype(np.uint8)
    found: Array = stretched[:, [0, 1, 2] if stretched.shape[1] >= 3 else [0, 0, 0]].transpose(0, 2, 3, 1)
    return found


def pictures(images: Any) -> Array:
    """(N, C, H, W) -> (N, h, w, 3) uint8 of at most 64 pixels a side."""
    from PIL import Image

    found = pixels(images)
    height, width = found.shape[1:3]
    scale = _LARGEST_SIDE / max(height, width)
    if scale >= 1 or not len(found):
        return found
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BOX)) for one in found])


def picture_url(picture: Array) -> str:
    """(h, w, 3) uint8 -> a ``data:`` URL."""
    from PIL import Image

    file, small = io.BytesIO(), max(picture.shape[:2]) <= _LARGEST_SIDE // 2
    Image.fromarray(picture).save(file, format="PNG" if small else "JPEG")
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}"
