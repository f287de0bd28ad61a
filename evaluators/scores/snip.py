"""How much the first loss hangs on the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimsearch.evaluators.scores._score import kernel_gradients

if TYPE_CHECKING:
    from torch import Tensor, nn


class Snip:
    """Sum over the kernels of |weight * gradient| of the cross-entropy of the batch.

    Source: the saliency of Lee et al. 2019, "SNIP: single-shot network pruning based on connection sensitivity", summed
    as in Abdelfattah et al. 2021, "Zero-cost proxies for lightweight NAS". What differs: dropout is off.
    """

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        return sum(
            float((weight * gradient).abs().sum()) for weight, gradient in kernel_gradients(module, images, labels)
        )
