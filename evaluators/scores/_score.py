"""What every score gives, and what those that run the network share."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


class Score(Protocol):
    """A number for a network that was never trained; one file in this folder, one class."""

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """More is said to be better. The same for the same arguments; `module` stays as it is.

        Args:
            module: (N, C, H, W) float32 -> (N, num_classes) logits.
            images: (N, C, H, W) float32, normalised.
            labels: (N,) int64.

        Returns:
            Infinite or NaN where the network has no score.
        """


def scoring_copy(module: nn.Module) -> nn.Module:
    """A copy whose BatchNorm layers use the statistics of the batch while everything random is off.

    BatchNorm that was never trained normalises nothing in evaluation mode, and dropout in training mode gives another
    number each time.
    """
    from torch import nn

    copied = copy.deepcopy(module).requires_grad_(True).eval()
    for layer in copied.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.train()
    return copied


def kernels(module: nn.Module) -> list[nn.Parameter]:
    """Parameters of two or more dimensions: no biases, nothing of BatchNorm."""
    return [parameter for parameter in module.parameters() if parameter.ndim > 1]


def kernel_gradients(module: nn.Module, images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Every kernel that the loss depends on, with the gradient of the cross-entropy of the batch."""
    import torch
    import torch.nn.functional as F

    copied = scoring_copy(module)
    weights = kernels(copied)
    with torch.enable_grad():
        loss = F.cross_entropy(copied(images), labels)
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return [(w.detach(), g) for w, g in zip(weights, gradients, strict=True) if g is not None]
