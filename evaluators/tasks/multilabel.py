"""Multi-label classification: any number of labels for each example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.tasks._learning_task import Array, LearningTask, Targets
from slimsearch.evaluators.tasks.classification import mean_auc

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Multilabel(LearningTask):
    """Each label is there or not; the network gives logits (N, labels), and a label above 0 is predicted.

    Metrics: macro F1, the mean F1 of the labels; the share of examples with all labels right; and the area under the
    ROC curve, averaged over the labels.

    Attributes:
        class_weights: weight of the positive examples of each label in the loss; "balanced": negative examples divided
            by positive ones in the training split; None: all 1.
    """

    class_weights: tuple[float, ...] | str | None = None

    metrics: ClassVar = {"macro_f1": "maximize", "exact_match": "maximize", "auc": "maximize"}
    augmentations = ("none", "shift", "shift-flip", "randaugment", "cutout", "mask", "noise", "mixup", "cutmix")

    def read(self, targets: Array, names: Sequence[str] = ()) -> Targets:
        if targets.ndim != 2 or 0 in targets.shape or not np.isin(targets, (0, 1)).all():
            raise SlimsearchError(
                f"targets are {targets.dtype} of the shape {targets.shape}; --task multilabel needs zeros and ones "
                "(N, labels)"
            )
        labels = targets.shape[1]
        return Targets(
            targets.astype(np.float32), tuple(names) if len(names) == labels else tuple(map(str, range(labels)))
        )

    def fitted(self, targets: Array) -> Multilabel:
        if self.class_weights != "balanced":
            return self
        ones = targets.sum(axis=0)
        return replace(self, class_weights=tuple(((len(targets) - ones) / np.maximum(ones, 1)).clip(1e-3).tolist()))

    def strata(self, targets: Array) -> Array:
        """By the rarest label of each example."""
        rarest_first = np.argsort(targets.sum(axis=0), kind="stable")
        ordered = targets[:, rarest_first] > 0
        found: Array = np.where(ordered.any(axis=1), rarest_first[ordered.argmax(axis=1)], targets.shape[1])
        return found.astype(np.int64)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        import torch.nn.functional as F

        weights = None if self.class_weights is None else outputs.new_tensor(self.class_weights)
        return F.binary_cross_entropy_with_logits(outputs, targets, pos_weight=weights)

    def predictions(self, outputs: Array) -> Array:
        found: Array = (outputs > 0).astype(np.uint8)
        return found

    def examples(self, outputs: Array, targets: Array) -> Array:
        """The targets, the predictions and the logits of all labels."""
        return np.concatenate([targets, self.predictions(outputs), outputs], axis=1, dtype=np.float32)

    def scores(self, examples: Array) -> dict[str, float]:
        true, predicted, logits = np.split(examples, 3, axis=1)
        both = (true * predicted).sum(axis=0)
        total = true.sum(axis=0) + predicted.sum(axis=0)
        # A label that is neither there nor predicted is right.
        f1 = np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0)
        found = {
            "macro_f1": float(f1.mean()),
            "exact_match": float((true == predicted).all(axis=1).mean()),
            "auc": mean_auc(logits, true > 0),
        }
        return {self.leading()[0]: found[self.leading()[0]], **found}
