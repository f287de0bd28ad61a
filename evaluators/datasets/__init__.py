"""Data sets: one named data set per file, image folders, and arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets._dataset import Dataset, Raw, Source, Split, split
from slimsearch.evaluators.datasets._user_data import ImageFolder, from_arrays, image_files, read_image
from slimsearch.names import built_in_names, load_class

__all__ = ["Dataset", "Raw", "Source", "Split", "image_files", "load_dataset", "read_image"]


def load_dataset(
    data: Any, *, root: str | Path | None = None, download: bool = False, image_size: int | None = None
) -> Dataset:
    """Read, resize and split a data set.

    Args:
        data: a name, the path of an image folder, ``(images, labels)``, ``(images, labels, test_images, test_labels)``
            or a PyTorch data set. Arrays are uint8 or floats in [0, 1], (N, H, W), (N, C, H, W) or (N, H, W, C).
        root: folder of the files of a named data set.
        download: download missing files into `root`.
        image_size: side in pixels that images are resized to; None: unchanged.

    Raises:
        SlimsearchError: the data set is unknown, or cannot be read.
    """
    if image_size is not None and (not isinstance(image_size, int) or image_size < 1):
        raise SlimsearchError(f"--image-size {image_size} is not a whole number from 1")
    if not isinstance(data, str | Path):
        return split(from_arrays(data), "arrays", image_size)
    name = str(data)
    known = built_in_names("slimsearch.evaluators.datasets")
    if name in known:
        source: Source = load_class("data set", name, "slimsearch.evaluators.datasets")()
        return split(source.read(Path(root).expanduser() if root else None, download), name, image_size)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise SlimsearchError(f"unknown data set '{name}'; known: {', '.join(known)}, or the path of an image folder")
    return split(ImageFolder(image_size).read(folder), folder.resolve().name, image_size)
