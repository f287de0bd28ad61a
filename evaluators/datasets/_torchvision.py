"""Data sets from torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError, first_line
from slimsearch.evaluators.datasets._dataset import Raw, Split


def read(class_name: str, root: Path | None, download: bool, augmentation: str) -> Raw:
    """Both splits of ``torchvision.datasets.<class_name>``.

    Raises:
        SlimsearchError: files are missing below `root` and not downloaded, or are damaged.
    """
    import torchvision.datasets

    folder = root if root is not None else Path("data")
    dataset_class = getattr(torchvision.datasets, class_name)
    try:
        train, test = (dataset_class(str(folder), train=train, download=download) for train in (True, False))
    except Exception as error:  # missing, damaged, or no network
        # torchvision's own message names an argument of its own.
        why = first_line(error) if download else "set the folder of its files with --data-root, or add --download"
        raise SlimsearchError(f"cannot read {class_name} below '{folder}': {why}") from error
    train_split, test_split = _split(train), _split(test)
    return Raw(train_split.inputs, train_split.targets, tuple(train.classes), test_split, augmentation)


def _split(dataset: Any) -> Split:
    images = np.asarray(dataset.data, dtype=np.uint8)  # (N, H, W) or (N, H, W, C)
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return Split(np.ascontiguousarray(images), np.asarray(dataset.targets, dtype=np.int64))
