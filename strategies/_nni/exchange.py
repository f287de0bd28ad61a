"""What NNI's algorithms take and give, said without importing NNI."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from slimsearch.search_spaces import Point

if TYPE_CHECKING:
    from torch import Tensor

Result = tuple[int, float | None]
"""The position of a proposal among all of them, and its score: more is better, None where there is none."""

Proposals = Generator[Point | None, Sequence[Result], None]
"""Yields points to evaluate, or None to wait for results; is sent all results that have come in since, in order."""


class ImageSplit(Protocol):
    """Images (N, C, H, W) uint8 and labels (N,) int64."""

    images: Any
    labels: Any


class ImageData(Protocol):
    """What a supernet is trained on."""

    train: ImageSplit

    def normalise(self, images: Any) -> Tensor:
        """(N, C, H, W) uint8 -> float32, as every network of the run gets it."""
