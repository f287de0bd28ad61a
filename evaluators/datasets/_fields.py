"""The several inputs of an example, whose values are side by side in one array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.reading import mismatch

Array = np.ndarray[Any, np.dtype[Any]]

_DESCRIPTION = {str: {"shape": [int], "bytes": bool}}


@dataclass(frozen=True)
class Field:
    """One of several inputs.

    Attributes:
        name: of the input of networks and files.
        shape: of one example, channels first.
        is_bytes: whether its values are bytes, which are divided by 255.
    """

    name: str
    shape: tuple[int, ...]
    is_bytes: bool


def positions(fields: Sequence[Field]) -> Array:
    """Number of values of each channel of all fields."""
    return np.concatenate([np.full(field.shape[0], math.prod(field.shape[1:])) for field in fields])


def described(fields: Sequence[Field]) -> dict[str, Any]:
    """The fields as values for JSON, for a file's metadata."""
    return {field.name: {"shape": list(field.shape), "bytes": field.is_bytes} for field in fields}


def fields_from(value: Any) -> tuple[Field, ...]:
    """The fields of `described`.

    Raises:
        SlimsearchError: the value is none.
    """
    wrong = mismatch(value, _DESCRIPTION, "inputs")
    if wrong is None and not all(one["shape"] and min(one["shape"]) > 0 for one in value.values()):
        wrong = "an input has no shape"
    if wrong is not None:
        raise SlimsearchError(wrong)
    return tuple(Field(name, tuple(one["shape"]), one["bytes"]) for name, one in value.items())
