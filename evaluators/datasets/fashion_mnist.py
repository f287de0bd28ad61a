"""Fashion-MNIST: 60,000 training and 10,000 test grayscale images of clothes, 28x28 pixels."""

from __future__ import annotations

from pathlib import Path

from slimsearch.evaluators.datasets import _torchvision
from slimsearch.evaluators.datasets._dataset import Raw


class FashionMnist:
    """``torchvision.datasets.FashionMNIST``, with its own test split."""

    def read(self, root: Path | None, download: bool) -> Raw:
        return _torchvision.read("FashionMNIST", root, download, augmentation="shift-flip")
