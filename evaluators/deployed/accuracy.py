"""What a share of rightly classified images says, and what it does not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_Z95 = 1.959964
_LEVEL = 0.05


def wilson(share: float, images: int) -> tuple[float, float]:
    """The 95% score interval of Wilson (1927) for a share of so many images, both between 0 and 1."""
    n, z = images, _Z95
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def confusion(labels: Any, predictions: Any) -> list[tuple[int, int, int]]:
    """How many images of each class were taken for which: (true class, predicted class, images), most images first.

    Pairs of classes that do not occur are left out, so that a thousand classes are no million numbers.

    Args:
        labels, predictions: of the same images, (N,) int.
    """
    pairs, images = np.unique(np.stack([labels, predictions], axis=1), axis=0, return_counts=True)
    found = [(int(true), int(taken), int(count)) for (true, taken), count in zip(pairs, images, strict=True)]
    return sorted(found, key=lambda cell: (-cell[2], cell))


def told_apart(one: Any, other: Any) -> bool:
    """Whether two classifiers of the same images differ in accuracy, by the exact test of McNemar (1947) at 5%.

    Args:
        one, other: whether each image was classified rightly, (N,) bool.
    """
    from scipy.stats import binomtest

    right, beside = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    lost, won = int((right & ~beside).sum()), int((~right & beside).sum())
    return lost + won > 0 and float(binomtest(lost, lost + won).pvalue) < _LEVEL
