"""How much a candidate is expected to gain."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


def expected_improvement(mean: Array, deviation: Array, best: float | Array) -> Array:
    """``E[max(0, best - Y)]`` of normal ``Y``, elementwise (Jones et al. 1998)."""
    from scipy.special import ndtr

    z = (best - mean) / deviation
    return np.asarray(deviation * (z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)))
