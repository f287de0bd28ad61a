"""Multilayer perceptrons, for tables."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn


class Mlp(nn.Module):
    """240 networks: up to four linear layers with batch normalization, and a linear output.

    With a shortcut, a linear function of the inputs is added to the output (Cheng et al. 2016).
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        width: Literal[8, 16, 32, 64, 128] = 32,
        depth: Literal[1, 2, 3, 4] = 2,
        taper: Literal[1, 2] = 1,
        dropout_percent: Literal[0, 10, 30] = 0,
        shortcut: Literal[False, True] = False,
    ) -> None:
        super().__init__()
        features = int(torch.Size(input_shape).numel())
        layers: list[nn.Module] = [nn.Flatten()]
        inputs: int = features
        outputs: int = width
        for _ in range(depth):
            layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
            layers.append(nn.Dropout(dropout_percent / 100))
            inputs, outputs = outputs, max(4, outputs // taper)
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, num_classes))
        self.shortcut = nn.Linear(features, num_classes, bias=False) if shortcut else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, F) float32 -> (N, num_classes) outputs."""
        outputs: torch.Tensor = self.layers(x)
        return outputs if self.shortcut is None else outputs + self.shortcut(torch.flatten(x, 1))
