"""How large the first gradient is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimsearch.evaluators.scores._score import kernel_gradients

if TYPE_CHECKING:
    from torch import Tensor, nn


class GradNorm:
    """Sum over the kernels of the Euclidean norm of the gradient of the cross-entropy of the batch.

    Source: Abdelfattah et al. 2021, "Zero-cost proxies for lightweight NAS", section 3.1. What differs: dropout is off,
    so that the score has one value.
    """

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        return sum(float(gradient.norm()) for _, gradient in kernel_gradients(module, images, labels))
