"""An image folder of the user's: ``train/<class>/*`` and ``test/<class>/*``, or one ``<class>/*`` that is split."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets._dataset import Array, Raw, Split

# Pillow knows many more, and hands one of them, PostScript, to a program that executes it.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
_MOST_PIXELS = 89_478_485  # as many as Pillow decodes without a warning of a decompression bomb


class ImageFolder:
    """Reads every image below a folder, the name of whose own folder is its class.

    Images are grey when every one of them is, else RGB. They keep their size where they all share one, and are
    resized to ``image_size`` squares where that is given.
    """

    def __init__(self, image_size: int | None) -> None:
        self.image_size = image_size

    def read(self, root: Path) -> Raw:
        """All images, decoded.

        Raises:
            SlimsearchError: no images, a broken one, different classes in train and test, or different sizes.
        """
        if not root.is_dir():
            raise SlimsearchError(f"data set: there is no folder '{root}'")
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
        grey = all(image.ndim == 2 for image in decoded)
        if grey:
            return np.stack(decoded)[:, None]
        return np.stack([np.stack([image] * 3) if image.ndim == 2 else image.transpose(2, 0, 1) for image in decoded])

    def _read(self, file: Path) -> Array:
        size = None if self.image_size is None else (self.image_size, self.image_size)
        try:
            return read_image(file, size)
        except SlimsearchError as error:
            raise SlimsearchError(f"data set: {error}") from error


def read_image(file: Path, size: tuple[int, int] | None = None, channels: int | None = None) -> Array:
    """The pixels of an image file, (H, W) uint8 of a grey one and (H, W, 3) of any other.

    Args:
        file: of the image.
        size: (H, W) that it is resized to, by default its own.
        channels: 1 for grey and 3 for colour; by default what it is.

    Raises:
        SlimsearchError: it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(file, formats=_FORMATS) as image:
            # Checked before a pixel is decoded: a few hundred bytes can stand for gigabytes.
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"it has {image.width}x{image.height} pixels, {_MOST_PIXELS:,} are the most")
            grey = channels == 1 if channels is not None else image.mode in ("1", "L", "I", "I;16", "F")
            converted = image.convert("L" if grey else "RGB")
            if size is not None:
                converted = converted.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            return np.asarray(converted, dtype=np.uint8)
    except Exception as error:  # Pillow raises anything on a damaged file
        raise SlimsearchError(f"cannot read the image '{file}': {error}") from error


def image_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Images in a folder by name; ``**/*`` is all of them below it."""
    return sorted(file for file in folder.glob(pattern) if file.is_file() and file.suffix.lower() in _SUFFIXES)


def _listing(root: Path) -> tuple[list[str], list[Path], list[int]]:
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for name in classes:
        if name != name.encode("utf-8", "ignore").decode():
            raise SlimsearchError(f"data set '{root}': the name of the class folder {name!r} is no text in UTF-8")
    if not classes:
        raise SlimsearchError(
            f"data set '{root}' has no class folders; expected train/<class>/*, test/<class>/* or <class>/*"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = image_files(root / name)
        if not found:
            raise SlimsearchError(
                f"data set: the folder '{root / name}' has no images ({', '.join(sorted(_SUFFIXES))})"
            )
        files += found
        labels += [label] * len(found)
    return classes, files, labels
