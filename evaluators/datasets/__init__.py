"""Data sets: one named data set per file, image folders, and arrays."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets._arrays import from_arrays
from slimsearch.evaluators.datasets._dataset import WHITE, Dataset, Raw, Source, Split
from slimsearch.evaluators.datasets._image_files import read_header, read_image
from slimsearch.evaluators.datasets._image_folder import image_files, read_folder, skipped_files
from slimsearch.evaluators.datasets._splitting import split
from slimsearch.names import built_in_names, load_class

__all__ = [
    "WHITE", "Dataset", "Raw", "Source", "Split", "image_files", "load_dataset", "read_header", "read_image",
    "skipped_files",
]  # fmt: skip


def load_dataset(
    data: Any, *, root: str | Path | None = None, download: bool = False, image_size: int | None = None,
    drop_duplicates: bool = False,
) -> Dataset:  # fmt: skip
    """Read, resize and split a data set.

    What was skipped, and images that are in several splits, is reported in log lines of this package.

    Args:
        data: a name, the path of an image folder, ``(images, labels)``, ``(images, labels, test_images, test_labels)``
            or a PyTorch data set of (image, label) pairs. Images are uint8, floats in [0, 1] or PIL images; (N, H, W),
            (N, C, H, W) or (N, H, W, C).
        root: folder of the files of a named data set.
        download: download missing files into `root`.
        image_size: side in pixels that images are resized to; None: unchanged.
        drop_duplicates: drop copies of images: in training those of any other image, in validation those of test
            images and of each other.

    Raises:
        SlimsearchError: the data set is unknown, cannot be read, or does not fit into memory.
    """
    image_size = _checked_size(image_size)
    if not isinstance(data, str | Path):
        raw, name = from_arrays(data, "arrays", image_size), "arrays"
    else:
        raw, name = _named(str(data), root, download, image_size)
    return split(raw, name, image_size, drop_duplicates=drop_duplicates)


def _checked_size(image_size: Any) -> int | None:
    if image_size is None:
        return None
    try:
        size = operator.index(image_size)
    except TypeError:
        size = 0
    if size < 1:
        raise SlimsearchError(f"--image-size {image_size} is not a whole number from 1")
    return size


def _named(name: str, root: str | Path | None, download: bool, image_size: int | None) -> tuple[Raw, str]:
    """A data set by its name or the path of its folder, and the name by which a run records it."""
    known = built_in_names("slimsearch.evaluators.datasets")
    if name in known:
        source: Source = load_class("data set", name, "slimsearch.evaluators.datasets")()
        return source.read(Path(root).expanduser() if root else None, download), name
    try:
        folder = Path(name).expanduser()
        is_folder = bool(name) and folder.is_dir()
    except (OSError, RuntimeError):  # too long, or of an unknown user
        is_folder = False
    if not is_folder:
        raise SlimsearchError(f"unknown data set '{name}'; known: {', '.join(known)}, or the path of an image folder")
    return read_folder(folder, image_size), folder.resolve().name
