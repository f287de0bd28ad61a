"""Squeeze-and-excitation, for spaces that have it as a choice."""

from __future__ import annotations

from typing import Any

import torch
from nni.nas.nn.pytorch import MutableConv2d
from torch import nn


class Weighted(nn.Module):
    """Squeeze-and-excitation: each channel times a number between 0 and 1 that follows from the means of all."""

    def __init__(self, width: Any) -> None:
        super().__init__()
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.squeeze = MutableConv2d(width, width // 4, kernel_size=1)
        self.activation = nn.ReLU()
        self.excite = MutableConv2d(width // 4, width, kernel_size=1)
        self.gate = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, width, H, W) -> the same shape."""
        weights = self.gate(self.excite(self.activation(self.squeeze(self.mean(x)))))
        return x * weights  # type: ignore[no-any-return]
