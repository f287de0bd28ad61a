"""One-dimensional convolutional networks for signals, such as those of sensors, and for sequences of features."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

_LEAST_LENGTH = 4  # of a map that is pooled


class SignalCnn(nn.Module):
    """3,456 networks: up to four blocks of 1-D convolutions, each followed by a pooling, and a linear layer.

    A block is a convolution, a depthwise separable one (Howard et al. 2017), or two convolutions with a shortcut
    (He et al. 2016); kernels are long, as in FCN and ResNet of Wang et al. 2017. The head takes the mean of each
    channel, or its mean and maximum: that a pattern occurs at all matters more in many signals than how often.
    """

    def __init__(
        self,
        in_channels: int,
        input_shape: tuple[int, ...],
        num_classes: int,
        width: Literal[4, 8, 16, 32] = 16,
        growth: Literal[1, 2] = 2,
        depth: Literal[1, 2, 3, 4] = 3,
        block: Literal["plain", "separable", "residual"] = "plain",
        kernel: Literal[3, 5, 9] = 5,
        stem_kernel: Literal[3, 9, 17] = 9,
        stem_stride: Literal[1, 2] = 1,
        head: Literal["mean", "mean and maximum"] = "mean",
    ) -> None:
        super().__init__()
        length = -(-input_shape[-1] // stem_stride)
        stem = nn.Conv1d(in_channels, width, stem_kernel, stem_stride, stem_kernel // 2, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm1d(width), nn.ReLU())
        blocks: list[nn.Module] = []
        inputs: int = width
        for index in range(depth):
            if length >= _LEAST_LENGTH:
                blocks.append(nn.MaxPool1d(2))
                length //= 2
            outputs = inputs * growth if index < depth - 1 else inputs
            blocks.append(_BLOCKS[block](inputs, outputs, kernel))
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.with_maximum = head == "mean and maximum"
        self.classifier = nn.Linear(inputs * (2 if self.with_maximum else 1), num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, L) float32 -> (N, num_classes) outputs."""
        x = self.blocks(self.stem(x))  # (N, width, L / 2^depth)
        mean = x.mean(dim=2)
        features = torch.cat([mean, x.amax(dim=2)], dim=1) if self.with_maximum else mean
        return self.classifier(features)  # type: ignore[no-any-return]


def _convolution(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm1d(outputs))


def _plain(inputs: int, outputs: int, kernel: int) -> nn.Module:
    return nn.Sequential(_convolution(inputs, outputs, kernel), nn.ReLU())


def _separable(inputs: int, outputs: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        _convolution(inputs, inputs, kernel, groups=inputs), nn.ReLU(), _convolution(inputs, outputs, 1), nn.ReLU()
    )


class _Residual(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(inputs, outputs, kernel), nn.ReLU(), _convolution(outputs, outputs, kernel)
        )
        self.shortcut = nn.Identity() if inputs == outputs else _convolution(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, L) -> (N, outputs, L)."""
        return torch.relu(self.body(x) + self.shortcut(x))


_BLOCKS = {"plain": _plain, "separable": _separable, "residual": _Residual}
