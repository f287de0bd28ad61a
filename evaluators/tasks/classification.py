"""Classification: one class for each example."""

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
class Classification(LearningTask):
    """One class for each example; the network gives logits (N, classes).

    Metrics: accuracy; balanced accuracy, the mean recall of the classes; macro F1; and the area under the ROC curve of
    each class against the others, averaged over the classes.

    Attributes:
        class_weights: weight of each class in the loss; "balanced": inversely proportional to its number of training
            examples; None: all 1.
        label_smoothing: share of the target probability that is spread over all classes (Szegedy et al. 2016).
    """

    class_weights: tuple[float, ...] | str | None = None
    label_smoothing: float = 0.0

    metrics: ClassVar = {
        "accuracy": "maximize",
        "balanced_accuracy": "maximize",
        "macro_f1": "maximize",
        "auc": "maximize",
    }
    augmentations = ("none", "shift", "shift-flip", "randaugment", "cutout", "mask", "noise", "mixup", "cutmix")
    gives_logits = True

    def read(self, targets: Array, names: Sequence[str] = ()) -> Targets:
        if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer) or len(targets) == 0:
            raise SlimsearchError(f"labels are {targets.dtype} of the shape {targets.shape}; needed: integers (N,)")
        if targets.min() < 0:
            raise SlimsearchError(f"label {targets.min()} is negative; labels count from 0")
        highest = int(targets.max())
        if not names and highest >= len(targets):
            raise SlimsearchError(
                f"label {highest} is above the number of examples; labels count from 0 without gaps: "
                "numpy.unique(labels, return_inverse=True)[1]"
            )
        known = tuple(names) if len(names) > highest else tuple(map(str, range(highest + 1)))
        return Targets(targets.astype(np.int64), known)

    def fitted(self, targets: Array) -> Classification:
        if self.class_weights != "balanced":
            return self
        counts = np.maximum(np.bincount(targets), 1)
        return replace(self, class_weights=tuple((len(targets) / (len(counts) * counts)).tolist()))

    @property
    def paired(self) -> int | None:
        return {"accuracy": 1, "auc": None}.get(self.leading()[0], 3)

    def strata(self, targets: Array) -> Array:
        return targets

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        import torch.nn.functional as F

        weights = None if self.class_weights is None else outputs.new_tensor(self.class_weights)
        return F.cross_entropy(outputs, targets, weights, label_smoothing=self.label_smoothing)

    def predictions(self, outputs: Array) -> Array:
        found: Array = outputs.argmax(axis=1).astype(np.int64)
        return found

    def examples(self, outputs: Array, targets: Array) -> Array:
        """Whether it is right, true class, predicted class, and the probability of each class."""
        predicted = self.predictions(outputs)
        shares = np.exp(outputs - outputs.max(axis=1, keepdims=True), dtype=np.float32)
        shares /= shares.sum(axis=1, keepdims=True)
        return np.column_stack([predicted == targets, targets, predicted, shares])

    def scores(self, examples: Array) -> dict[str, float]:
        found = {name: self._score(name, examples) for name in self.metrics}
        return {self.leading()[0]: found[self.leading()[0]], **found}

    def leading_value(self, examples: Array) -> float:
        return self._score(self.leading()[0], examples)

    def _score(self, name: str, examples: Array) -> float:
        right = examples[:, 0]
        if name == "accuracy":
            return float(right.mean())
        true, predicted = examples[:, 1:3].T.astype(np.int64)
        if name == "auc":
            shares = examples[:, 3:]
            return mean_auc(shares, true[:, None] == np.arange(shares.shape[1]))
        classes = int(max(true.max(), predicted.max())) + 1
        hits, actual, said = (
            np.bincount(labels, weights, classes)
            for labels, weights in ((true, right), (true, None), (predicted, None))
        )
        there = actual > 0
        if name == "balanced_accuracy":
            return float((hits[there] / actual[there]).mean())
        return float((2 * hits[there] / (actual + said)[there]).mean())


def mean_auc(scores: Array, positive: Array) -> float:
    """Area under the ROC curve of each column, averaged over those with positive and negative examples; 0.5 if none.

    Args:
        scores: (N, L), higher for positive examples.
        positive: (N, L) bool.
    """
    from scipy.stats import rankdata

    ones, total = positive.sum(axis=0), len(positive)
    both = (ones > 0) & (ones < total)
    if not both.any():
        return 0.5
    ranks = rankdata(scores[:, both], axis=0)
    ones = ones[both]
    areas = ((ranks * positive[:, both]).sum(axis=0) - ones * (ones + 1) / 2) / (ones * (total - ones))
    return float(areas.mean())
