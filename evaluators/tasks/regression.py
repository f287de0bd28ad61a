"""Regression: one number or several for each example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.tasks._learning_task import Array, LearningTask, Targets

if TYPE_CHECKING:
    from torch import Tensor

_STRATA = 10  # quantiles of the first target that all splits have in equal shares


@dataclass(frozen=True)
class Regression(LearningTask):
    """Numbers; the network gives (N, targets), standardized by mean and deviation of the training targets.

    Metrics: R2, the explained share of the variance, averaged over the targets; root mean square error and mean
    absolute error in the units of the targets, over all targets.

    Attributes:
        mean, std: of each target in the training split: a prediction is ``output * std + mean``.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    metrics: ClassVar = {"r2": "maximize", "rmse": "minimize", "mae": "minimize"}
    augmentations = ("none", "shift", "shift-flip", "randaugment", "cutout", "mask", "noise", "mixup")

    def read(self, targets: Array, names: Sequence[str] = ()) -> Targets:
        values = targets[:, None] if targets.ndim == 1 else targets
        if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "buif":
            raise SlimsearchError(
                f"targets are {targets.dtype} of the shape {targets.shape}; --task regression needs numbers (N,) or "
                "(N, targets)"
            )
        if not np.isfinite(values).all():
            raise SlimsearchError("targets are nan or infinite; --task regression needs finite numbers")
        count = values.shape[1]
        found = tuple(names) if len(names) == count else tuple(f"target{number}" for number in range(count))
        return Targets(values.astype(np.float32), found)

    def fitted(self, targets: Array) -> Regression:
        std = targets.std(axis=0, dtype=np.float64)
        if std.min() == 0:
            raise SlimsearchError("a target is the same for all training examples: there is nothing to learn")
        return replace(self, mean=tuple(targets.mean(axis=0, dtype=np.float64).tolist()), std=tuple(std.tolist()))

    def strata(self, targets: Array) -> Array:
        """By the quantile of the first target."""
        edges = np.quantile(targets[:, 0], np.linspace(0, 1, _STRATA + 1)[1:-1])
        return np.searchsorted(edges, targets[:, 0]).astype(np.int64)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        mean, std = (outputs.new_tensor(values) for values in (self.mean, self.std))
        return (outputs - (targets - mean) / std).square().mean()

    def predictions(self, outputs: Array) -> Array:
        std, mean = (np.array(values, dtype=np.float32) for values in (self.std, self.mean))
        found: Array = (outputs * std + mean).astype(np.float32)
        return found

    def examples(self, outputs: Array, targets: Array) -> Array:
        """The targets and the predictions."""
        return np.concatenate([targets, self.predictions(outputs)], axis=1, dtype=np.float32)

    def scores(self, examples: Array) -> dict[str, float]:
        true, predicted = np.split(examples.astype(np.float64), 2, axis=1)
        squares, spread = np.square(predicted - true).mean(axis=0), true.var(axis=0)
        varied = spread > 0
        found = {
            "r2": float((1 - squares[varied] / spread[varied]).mean()) if varied.any() else 0.0,
            "rmse": float(np.sqrt(squares.mean())),
            "mae": float(np.abs(predicted - true).mean()),
        }
        return {self.leading()[0]: found[self.leading()[0]], **found}
