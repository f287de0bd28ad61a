"""Synaptic flow before training."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, ClassVar

from slimsearch.compression.pruning.importances._importance import Importance

if TYPE_CHECKING:
    from torch import Tensor, nn


class Synflow(Importance):
    """How much a weight carries of the flow through the untrained network, without looking at any data.

    Source: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow":
    |weight * dR/dweight|, R the sum of the outputs for an input of ones, all weights at their absolute value; computed
    in float64 as theirs, once rather than in a hundred iterations. BatchNorm is run in evaluation mode. The cut
    network is trained from its initial weights.
    """

    at_initialization: ClassVar[bool] = True

    def __init__(self) -> None:
        self._scores: dict[str, Tensor] = {}

    def prepare(self, module: nn.Module, images: Tensor) -> None:
        import torch

        linear = copy.deepcopy(module).double().eval()
        with torch.no_grad():
            for tensor in linear.state_dict().values():
                if tensor.is_floating_point():
                    tensor.abs_()
        linear(torch.ones_like(images[:1], dtype=torch.float64)).sum().backward()
        self._scores = {
            name: (weight * weight.grad).detach().abs().float()
            for name, weight in linear.named_parameters()
            if weight.grad is not None
        }

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(self._scores)
