"""A user's own data: image folders, arrays, and PyTorch data sets."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError, first_line
from slimsearch.evaluators.datasets._dataset import Array, Raw, Split

# Pillow knows many more formats; one of them, PostScript, is executed by another program.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
_MAX_PIXELS = 89_478_485  # above it, Pillow warns of a decompression bomb


class ImageFolder:
    """A data set in ``<class>/*`` folders, or in ``train/<class>/*`` and ``test/<class>/*``.

    Images are grayscale if all of them are, else RGB.

    Args:
        image_size: side in pixels that all images are resized to; None if they already have one size.
    """

    def __init__(self, image_size: int | None) -> None:
        self.image_size = image_size

    def read(self, root: Path) -> Raw:
        """Decode all images below `root`.

        Raises:
            SlimsearchError: there are no images, one is damaged, train and test have different classes, or the images
                have different sizes.
        """
        if not root.is_dir():
            raise SlimsearchError(f"data set: folder '{root}' does not exist")
        has_test = (root / "train").is_dir() and (root / "test").is_dir()
        train_root = root / "train" if has_test or (root / "train").is_dir() else root
        classes, files, labels = _listing(train_root)
        test_files: list[Path] = []
        test_labels: list[int] = []
        if has_test:
            test_classes, test_files, test_labels = _listing(root / "test")
            if test_classes != classes:
                different = sorted(set(classes) ^ set(test_classes))
                raise SlimsearchError(
                    f"data set '{root}': train and test have different classes ({', '.join(different)} in only one)"
                )
        images = self._decode(root, files + test_files)
        count = len(files)
        train_labels = np.array(labels, dtype=np.int64)
        test = Split(images[count:], np.array(test_labels, dtype=np.int64)) if has_test else None
        return Raw(images[:count], train_labels, tuple(classes), test)

    def _decode(self, root: Path, files: list[Path]) -> Array:
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            decoded = list(pool.map(self._read, files))
        sizes = sorted({image.shape[:2] for image in decoded})
        if len(sizes) > 1:
            some = ", ".join(f"{width}x{height}" for height, width in sizes[:3])
            raise SlimsearchError(
                f"data set '{root}': images have {len(sizes)} different sizes ({some}, ...); pass --image-size N"
            )
        if sizes[0][0] != sizes[0][1]:
            height, width = sizes[0]
            raise SlimsearchError(f"data set '{root}': images are {width}x{height}, not square; pass --image-size N")
        gray = all(image.ndim == 2 for image in decoded)
        if gray:
            return np.stack(decoded)[:, None]
        return np.stack([np.stack([image] * 3) if image.ndim == 2 else image.transpose(2, 0, 1) for image in decoded])

    def _read(self, file: Path) -> Array:
        size = None if self.image_size is None else (self.image_size, self.image_size)
        try:
            return read_image(file, size)
        except SlimsearchError as error:
            raise SlimsearchError(f"data set: {error}") from error


def read_image(file: Path, size: tuple[int, int] | None = None, channels: int | None = None) -> Array:
    """Pixels of an image file: (H, W) uint8 for grayscale, else (H, W, 3).

    Args:
        file: the image file.
        size: (H, W) to resize to; None: unchanged.
        channels: 1 for grayscale, 3 for RGB; None: as in the file.

    Raises:
        SlimsearchError: the file cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(file, formats=_FORMATS) as image:
            # Checked before decoding: a file of a few hundred bytes can expand to gigabytes.
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels, more than {_MAX_PIXELS:,}")
            gray = channels == 1 if channels is not None else image.mode in ("1", "L", "I", "I;16", "F")
            converted = image.convert("L" if gray else "RGB")
            if size is not None:
                converted = converted.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            return np.asarray(converted, dtype=np.uint8)
    except Exception as error:  # Pillow raises many kinds
        raise SlimsearchError(f"cannot read the image '{file}': {error}") from error


def image_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Image files in `folder` that match `pattern`, sorted; ``**/*`` includes all subfolders."""
    return sorted(file for file in folder.glob(pattern) if file.is_file() and file.suffix.lower() in _SUFFIXES)


def _listing(root: Path) -> tuple[list[str], list[Path], list[int]]:
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for name in classes:
        if name != name.encode("utf-8", "ignore").decode():
            raise SlimsearchError(f"data set '{root}': the name of class folder {name!r} is not UTF-8")
    if not classes:
        raise SlimsearchError(
            f"data set '{root}' has no class folders; expected train/<class>/*, test/<class>/* or <class>/*"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = image_files(root / name)
        if not images:
            raise SlimsearchError(
                f"data set: the folder '{root / name}' has no images ({', '.join(sorted(_SUFFIXES))})"
            )
        files += images
        labels += [label] * len(images)
    return classes, files, labels


def from_arrays(data: Any) -> Raw:
    """A data set from Python values.

    Args:
        data: ``(images, labels)``, ``(images, labels, test_images, test_labels)``, or a sequence of ``(image, label)``
            pairs, such as a PyTorch data set. Images are uint8, or floats in [0, 1]; (N, H, W), (N, C, H, W) or
            (N, H, W, C) with 1 or 3 channels.

    Raises:
        SlimsearchError: `data` has another form.
    """
    if isinstance(data, tuple | list) and len(data) in (2, 4):
        arrays = [(data[i], data[i + 1]) for i in range(0, len(data), 2)]
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        try:
            pairs = [data[index] for index in range(len(data))]
            arrays = [(np.stack([np.asarray(image) for image, _ in pairs]), [int(label) for _, label in pairs])]
        except (TypeError, ValueError) as error:
            raise SlimsearchError(
                f"the data set needs (image, label) pairs of one size: {first_line(error)}"
            ) from error
    else:
        raise SlimsearchError(
            f"a data set is a name, a folder, (images, labels) or a PyTorch data set, not {type(data).__name__}"
        )
    splits = [_as_split(images, labels) for images, labels in arrays]
    classes = int(max(split.labels.max() for split in splits)) + 1
    names = getattr(data, "classes", None)
    class_names = tuple(map(str, names)) if names is not None and len(names) == classes else None
    return Raw(
        splits[0].images, splits[0].labels, class_names or tuple(map(str, range(classes))),
        test=splits[1] if len(splits) == 2 else None,
    )  # fmt: skip


def _as_split(images: Any, labels: Any) -> Split:
    try:
        pixels, targets = np.asarray(images), np.asarray(labels)
    except (TypeError, ValueError) as error:
        raise SlimsearchError(f"images or labels are not an array: {first_line(error)}") from error
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
    return Split(np.ascontiguousarray(_as_bytes(pixels)), targets.astype(np.int64))


def _as_bytes(pixels: Array) -> Array:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind not in "buif":
        raise SlimsearchError(f"images are {pixels.dtype}; needed: uint8, or floats in [0, 1]")
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > (1 if pixels.dtype.kind == "f" else 255):
        raise SlimsearchError(
            f"images are {pixels.dtype} from {pixels.min()} to {pixels.max()}; needed: uint8, or floats in [0, 1]"
        )
    scale = 255 if pixels.dtype.kind == "f" else 1
    return (pixels * scale).round().astype(np.uint8)
