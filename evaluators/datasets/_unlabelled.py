"""Inputs without targets, for networks that a user's functions train and score."""

from __future__ import annotations

from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError, first_line
from slimsearch.evaluators.datasets._dataset import Dataset, Split
from slimsearch.evaluators.tasks import OwnScore


def is_unlabelled(data: Any) -> bool:
    """Whether `data` is one array or tensor, of inputs alone."""
    return hasattr(data, "shape") and hasattr(data, "dtype") and not hasattr(data, "columns")


def unlabelled(inputs: Any) -> Dataset:
    """A data set of inputs as networks get them: nothing is normalized, and targets are zeros.

    They calibrate int8 files, and are what a file is compared and measured with. There is no test split, and the task
    has no metrics until a score function is known.

    Args:
        inputs: (N, ...) numbers.

    Raises:
        SlimsearchError: they are none, or not finite.
    """
    try:
        values = np.asarray(inputs.detach().cpu() if hasattr(inputs, "detach") else inputs)
        if values.dtype.kind not in "buif" or values.ndim < 2 or 0 in values.shape:
            raise SlimsearchError(f"they are {values.dtype} of the shape {values.shape}")
        values = np.ascontiguousarray(values, dtype=np.float32)
        if not np.isfinite(values).all():
            raise SlimsearchError("they have values that are nan or infinite")
    except Exception as error:  # of a user's class
        raise SlimsearchError(
            f"inputs without targets: {first_line(error)}; needed: numbers (N, ...), as the network gets them"
        ) from error
    both = Split(values, np.zeros(len(values), dtype=np.int64))
    channels = values.shape[1]
    return Dataset("inputs", (), both, both, None, (0.0,) * channels, (1.0,) * channels, "none", task=OwnScore())
