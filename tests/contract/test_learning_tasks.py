"""The laws of learning tasks, kept by built-ins and by a task of a user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from slimsearch import LearningTask, SlimsearchError
from slimsearch.evaluators.tasks import Targets
from slimsearch.testing import LearningTaskContract

if TYPE_CHECKING:
    from torch import Tensor

RNG = np.random.default_rng(1)
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Counting(LearningTask):
    """Counts, by a Poisson loss; the mean absolute error leads."""

    metrics: ClassVar = {"error": "minimize"}

    def read(self, targets: Array, names: Sequence[str] = ()) -> Targets:
        if targets.ndim != 1 or targets.dtype.kind not in "ui" or len(targets) == 0:
            raise SlimsearchError("counts are whole numbers (N,)")
        return Targets(targets.astype(np.float32), ("count",))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        import torch.nn.functional as F

        return F.poisson_nll_loss(outputs[:, 0], targets)

    def predictions(self, outputs: Array) -> Array:
        found: Array = np.exp(outputs[:, 0])
        return found

    def examples(self, outputs: Array, targets: Array) -> Array:
        return abs(self.predictions(outputs) - targets)[:, None]

    def scores(self, examples: Array) -> dict[str, float]:
        return {"error": float(examples.mean())}


class TestClassification(LearningTaskContract):
    task = "classification"
    targets = RNG.integers(0, 4, 90)


class TestMultilabel(LearningTaskContract):
    task = "multilabel"
    targets = RNG.integers(0, 2, (90, 3))


class TestRegression(LearningTaskContract):
    task = "regression"
    targets = 1000 + 50 * RNG.normal(size=(90, 2))


class TestSegmentation(LearningTaskContract):
    task = "segmentation"
    targets = RNG.integers(0, 3, (90, 8, 8))


class TestOfAUser(LearningTaskContract):
    task = Counting()
    targets = RNG.poisson(4, 90)
