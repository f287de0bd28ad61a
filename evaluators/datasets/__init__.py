"""Images to search on: one data set per file, image folders, and what Python code hands over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import _arrays
from slimsearch.evaluators.datasets._dataset import Dataset, Raw, Source, Split, split
from slimsearch.evaluators.datasets._image_folder import ImageFolder, image_files, read_image
from slimsearch.names import built_in_names, load_class

__all__ = ["Dataset", "Raw", "Source", "Split", "image_files", "load_dataset", "read_image"]


def load_dataset(
    data: Any, *, root: str | Path | None = None, download: bool = False, image_size: int | None = None
) -> Dataset:
    """The data set `data`, read, resized and split.

    Args:
        data: a built-in's name, the path of an image folder, or arrays (see `_arrays.read`).
        root: where the files of a named data set are.
        download: fetch them there if they are missing.
        image_size: make every image a square of so many pixels.

    Raises:
        SlimsearchError: there is no such data set, or it cannot be read.
    """
    if image_size is not None and image_size < 1:
        raise SlimsearchError(f"--image-size {image_size} is less than 1")
    if not isinstance(data, str | Path):
        return split(_arrays.read(data), "arrays", image_size)
    name = str(data)
    known = built_in_names("slimsearch.evaluators.datasets")
    if name in known:
        source: Source = load_class("data set", name, "slimsearch.evaluators.datasets")()
        return split(source.read(Path(root).expanduser() if root else None, download), name, image_size)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise SlimsearchError(f"unknown data set '{name}'; known: {', '.join(known)}, or the path of an image folder")
    return split(ImageFolder(image_size).read(folder), folder.resolve().name, image_size)
