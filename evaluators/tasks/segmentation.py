"""Semantic segmentation: one class for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.tasks._learning_task import Array, LearningTask, Targets

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Segmentation(LearningTask):
    """A class for each pixel; the network gives logits (N, classes, H, W).

    Metrics: mean intersection over union of the classes, and the share of pixels that are right.

    Attributes:
        class_weights: weight of each class in the loss; "balanced": inversely proportional to its number of training
            pixels; None: all 1.
    """

    class_weights: tuple[float, ...] | str | None = None

    metrics: ClassVar = {"mean_iou": "maximize", "pixel_accuracy": "maximize"}
    augmentations = ("none", "shift", "shift-flip", "noise")
    targets_move = True

    def read(self, targets: Array, names: Sequence[str] = ()) -> Targets:
        if targets.ndim != 3 or 0 in targets.shape or not np.issubdtype(targets.dtype, np.integer):
            raise SlimsearchError(
                f"masks are {targets.dtype} of the shape {targets.shape}; --task segmentation needs integers (N, H, W)"
            )
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high > 255:
            raise SlimsearchError(f"masks have classes from {low} to {high}; they count from 0, up to 255")
        known = tuple(names) if len(names) > high else tuple(map(str, range(high + 1)))
        return Targets(targets.astype(np.uint8), known)

    def fitted(self, targets: Array) -> Segmentation:
        if self.class_weights != "balanced":
            return self
        counts = np.maximum(np.bincount(targets.ravel()), 1)
        return replace(self, class_weights=tuple((targets.size / (len(counts) * counts)).tolist()))

    def output_shape(self, outputs: int, input_shape: Sequence[int]) -> tuple[int, ...]:
        return (outputs, *input_shape[1:])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        import torch.nn.functional as F

        weights = None if self.class_weights is None else outputs.new_tensor(self.class_weights)
        return F.cross_entropy(outputs, targets.long(), weights)

    def predictions(self, outputs: Array) -> Array:
        found: Array = outputs.argmax(axis=1).astype(np.uint8)
        return found

    def examples(self, outputs: Array, targets: Array) -> Array:
        """Pixels in the intersection and in the union of each class."""
        predicted, classes = self.predictions(outputs), outputs.shape[1]
        both, either = np.empty((2, len(targets), classes), dtype=np.float32)
        for number in range(classes):
            true, said = targets == number, predicted == number
            both[:, number] = (true & said).sum(axis=(1, 2))
            either[:, number] = (true | said).sum(axis=(1, 2))
        return np.concatenate([both, either], axis=1)

    def scores(self, examples: Array) -> dict[str, float]:
        both, either = np.split(examples.sum(axis=0, dtype=np.float64), 2)
        there = either > 0
        # A wrong pixel is in the union of two classes.
        wrong = (either.sum() - both.sum()) / 2
        found = {
            "mean_iou": float((both[there] / either[there]).mean()),
            "pixel_accuracy": float(both.sum() / (both.sum() + wrong)),
        }
        return {self.leading()[0]: found[self.leading()[0]], **found}
