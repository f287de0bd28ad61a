"""Activations of one bit."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Sign(nn.Module):
    """1 where the input is not below its channel's threshold, -1 elsewhere; the thresholds are learned.

    The gradient passes where the input is within 1 of it. Source: Courbariaux et al. 2016, section 1.3 (the "hard tanh"
    estimator); thresholds as in ReActNet (Liu et al. 2020), without which whatever a ReLU gives is 1.

    Args:
        channels: C of inputs (N, C, H, W) or (..., C).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - (self.threshold.view(-1, 1, 1) if x.ndim == 4 else self.threshold)
        signs = torch.where(centred >= 0, 1.0, -1.0).to(x.dtype)
        if not torch.is_grad_enabled():
            return signs
        limited = centred.clamp(-1, 1)
        return limited + (signs - limited).detach()
