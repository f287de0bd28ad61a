"""Digits: 1,797 handwritten digits of 8x8 pixels, shipped with scikit-learn (no download)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from slimsearch.evaluators.datasets._dataset import Raw


class Digits:
    """8x8 grayscale digits with 17 levels."""

    def read(self, root: Path | None, download: bool) -> Raw:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = (bunch.images * 255 / 16).round().astype(np.uint8)  # (1797, 8, 8), levels 0..16
        # No shift: it would move strokes out of images of 8 pixels.
        return Raw(images[:, None], bunch.target.astype(np.int64), tuple(map(str, range(10))), augmentation="none")
