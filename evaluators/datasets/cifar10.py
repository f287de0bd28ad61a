"""CIFAR-10: 50,000 training and 10,000 test color images of 32x32 pixels."""

from __future__ import annotations

from pathlib import Path

from slimsearch.evaluators.datasets import _torchvision
from slimsearch.evaluators.datasets._dataset import Raw


class Cifar10:
    """``torchvision.datasets.CIFAR10``, with its own test split."""

    def read(self, root: Path | None, download: bool) -> Raw:
        return _torchvision.read("CIFAR10", root, download, augmentation="shift-flip")
