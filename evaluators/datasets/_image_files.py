"""Image files: their headers and pixels, as image folders and ``slimsearch predict`` read them.

Transparent pixels are composited over white, the EXIF orientation is applied, and grayscale images with more than 8
bits are scaled to 8 bits.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.errors import SlimsearchError, reason
from slimsearch.evaluators.datasets._dataset import WHITE, Array

if TYPE_CHECKING:
    from PIL import Image

# Pillow knows many more formats; one of them, PostScript, is executed by another program.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
_ENDINGS = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm",
    ".pgm", ".pbm", ".pnm",
)  # fmt: skip
_OPTIONAL = {"avif": (".avif",), "jpg_2000": (".jp2", ".j2k", ".jpx")}  # features of Pillow
_MAX_PIXELS = 89_478_485  # above it, Pillow warns of a decompression bomb
_GRAY = frozenset(("1", "L", "LA", "La", "I", "F"))
_ORIENTATION = 0x0112
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # values of PIL.Image.Transpose by EXIF orientation
_LOW_DEPTHS = {"L;2": 85, "L;4": 17}  # factor from the value in a PNG file to 8 bits
_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339  # tags of a TIFF file
_BLACK_IS_HIGHEST, _SIGNED = 0, 2


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says.

    Attributes:
        size: (H, W) of the upright image.
        is_gray: grayscale, with or without alpha.
        is_deep: grayscale integers with more than 8 bits; see `read_image`.
        is_deep_color: colors with 16 bits, of which the higher 8 are read.
        frames: number of frames or pages, of which the first is read.
    """

    size: tuple[int, int]
    is_gray: bool
    is_deep: bool
    is_deep_color: bool
    frames: int


@functools.cache
def image_endings() -> frozenset[str]:
    """Lower-case endings of the files that are read as images."""
    from PIL import features

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about features that an older Pillow does not know
        optional = [ending for feature, endings in _OPTIONAL.items() if features.check(feature) for ending in endings]
    return frozenset((*_ENDINGS, *optional))


def read_header(file: Path) -> ImageHeader:
    """Read the header of an image file, without decoding it.

    Raises:
        SlimsearchError: the file cannot be read.
    """
    with _opened(file) as image:
        size = (image.height, image.width)
        # Pillow has turned the size of a TIFF itself, and would decode a PNG to look for its orientation.
        known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        if known and _orientation(image) in (5, 6, 7, 8):
            size = size[::-1]
        frames = 1
        if image.format != "MPO":  # further frames of such a photo are previews
            with contextlib.suppress(Exception):  # of damaged frames; the first one may be whole
                frames = int(getattr(image, "n_frames", 1))
        deep_color = not _is_gray(image) and ";16" in _coding(image)
        return ImageHeader(size, _is_gray(image), _is_deep(image), deep_color, frames)


def highest_value(file: Path) -> int:
    """The highest value of an image of integers with more than 8 bits.

    Raises:
        SlimsearchError: the file cannot be read.
    """
    with _opened(file) as image:
        return int(np.asarray(image).max())


def read_image(
    file: Path, size: tuple[int, int] | None = None, channels: int | None = None, white: int = WHITE
) -> Array:
    """Pixels of an image file: (H, W) uint8 for grayscale, else (H, W, 3).

    Grayscale integers with more than 8 bits become ``value * 255 / white``, floats ``value * 255``.

    Args:
        file: the image file.
        size: (H, W) to resize to; None: unchanged.
        channels: 1 for grayscale, 3 for RGB; None: as in the file.
        white: highest value of integers with more than 8 bits.

    Raises:
        SlimsearchError: the file cannot be read, or has values below 0, above `white`, or floats above 1.
    """
    from PIL import Image

    with _opened(file) as image:
        gray = channels == 1 if channels is not None else _is_gray(image)
        converted = _eight_bits(image, white).convert("L" if gray else "RGB")
        if size is not None:
            converted = converted.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(converted, dtype=np.uint8)


def pixels_of(image: Image.Image) -> Array:
    """Pixels of a PIL image of the user, as `read_image` gives them.

    Raises:
        ValueError: the image has more than 8 bits, and so no known value of white, or a mode that is not read.
    """
    if _is_deep(image):
        raise ValueError(f"PIL image of mode {image.mode}, with more than 8 bits; convert it to floats in [0, 1]")
    return np.asarray(_eight_bits(image, WHITE).convert("L" if _is_gray(image) else "RGB"), dtype=np.uint8)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    from PIL import Image, UnidentifiedImageError

    try:
        # By its path, Pillow would map a turned TIFF file into memory, and mix up its rows.
        with file.open("rb") as stream, Image.open(stream, formats=_FORMATS) as image:
            # Checked before decoding: a file of a few hundred bytes can expand to gigabytes.
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels, more than {_MAX_PIXELS:,}")
            yield image
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise SlimsearchError(
            f"cannot read the image '{file}': it is none of {', '.join(_FORMATS)}, or of a kind that Pillow cannot read"
        ) from error
    except Exception as error:  # Pillow raises many kinds
        raise SlimsearchError(f"cannot read the image '{file}': {reason(error)}") from error


def _is_gray(image: Image.Image) -> bool:
    # Pillow reads gray with alpha in 16 bits as colors.
    return image.mode in _GRAY or image.mode.startswith("I;16") or _coding(image) == "LA;16B"


def _coding(image: Image.Image) -> str:
    """Pillow's name for the values in the file, such as "RGB;16B"; empty once the image is loaded."""
    for tile in getattr(image, "tile", ()):
        options = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        return str(options[0]) if options else ""
    return ""


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none, or if the EXIF data is damaged."""
    with contextlib.suppress(Exception):
        found = image.getexif().get(_ORIENTATION, 1)
        return found if isinstance(found, int) else 1
    return 1


def _eight_bits(image: Image.Image, white: int) -> Image.Image:
    """The upright image in 8 bits, gray or color, without transparency."""
    from PIL import Image

    coding, gray, tags = _coding(image), _is_gray(image), getattr(image, "tag_v2", {})
    image.load()
    transparent = image.info.get("transparency")
    if image.mode == "LAB":
        raise ValueError("LAB colors are not read; save the image as RGB")
    if image.mode == "L" and _SIGNED in np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1)):
        raise ValueError("signed values of 8 bits are not read; save the image with unsigned ones")
    if image.mode == "F" or _is_deep(image):
        pixels = _scaled(np.asarray(image), white)
        if tags.get(_PHOTOMETRIC) == _BLACK_IS_HIGHEST:  # Pillow inverts up to 8 bits only
            pixels = 255 - pixels
        if isinstance(transparent, int):
            pixels[np.asarray(image) == transparent] = 255
        found = Image.fromarray(pixels)
    elif image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or (image.mode == "P" and _has_transparency(image)):
        found = Image.fromarray(_over_white(np.asarray(image.convert("LA" if gray else "RGBA"))))
    else:
        found = image.convert("L" if image.mode in ("1", "L") else "RGB")
        if transparent is not None and image.mode in ("1", "L", "RGB"):
            found = Image.fromarray(_keyed(np.array(found), transparent, coding))
    turn = _TURNS.get(_orientation(image))
    return found if turn is None else found.transpose(Image.Transpose(turn))


def _scaled(values: Array, white: int) -> Array:
    """Integers up to `white`, or floats up to 1, as uint8."""
    low, high = values.min(), values.max()
    top = 1 if values.dtype.kind == "f" else white
    if not (low >= 0 and high <= top):  # NaN compares false
        reason = "floats have to be in [0, 1]" if values.dtype.kind == "f" else f"they have to be in [0, {white}]"
        raise ValueError(f"values from {low} to {high}; {reason}")
    return np.rint(values * (255 / top)).astype(np.uint8)


def _has_transparency(image: Image.Image) -> bool:
    return "transparency" in image.info or (image.palette is not None and image.palette.mode.endswith("A"))


def _over_white(pixels: Array) -> Array:
    """(H, W, color and alpha) uint8 over white: (H, W) or (H, W, 3)."""
    colors, alpha = pixels[..., :-1].astype(np.uint16), pixels[..., -1:].astype(np.uint16)
    found = ((colors * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return found[..., 0] if found.shape[-1] == 1 else found


def _keyed(pixels: Array, transparent: Any, coding: str) -> Array:
    """Makes the pixels white that have the one color which a PNG or GIF file declares as transparent."""
    color = np.asarray(transparent)
    if coding in _LOW_DEPTHS:
        color = color * _LOW_DEPTHS[coding]
    elif coding == "RGB;16B":
        color = color >> 8
    matches = pixels == color if pixels.ndim == 2 else (pixels == color).all(axis=-1)
    pixels[matches] = 255
    return pixels
