"""Residual networks for CIFAR-10 with variable depths, widths, blocks and stem."""

from __future__ import annotations

from typing import Any

import nni
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableLinear, Repeat
from torch import nn

from slimsearch.search_spaces._nni.layers import check_size, conv_bn


class ResnetCifar(ModelSpace):  # type: ignore[misc]
    """1,296 residual networks of three stages, after those of He et al. 2016 for CIFAR-10.

    Blocks are basic or bottleneck blocks (He et al. 2016) or inverted residuals (Sandler et al. 2018, with ReLU); a
    stage has one or two. The stem has stride 1 or 2. On 32x32 color images of ten classes the networks have about
    15,000 to 600,000 parameters.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, image_size: int = 32) -> None:
        super().__init__()
        check_size("resnet_cifar", image_size, 16)
        widths = [
            nni.choice("width1", [16, 24, 32]),
            nni.choice("width2", [32, 48, 64]),
            nni.choice("width3", [48, 80, 112]),
        ]
        strides = {"plain": 1, "strided": 2}
        self.stem = LayerChoice(
            {name: conv_bn(in_channels, widths[0], 3, stride) for name, stride in strides.items()}, label="stem"
        )
        self.stem_activation = nn.ReLU()
        self.stage1 = _stage(1, widths[0], widths[0], stride=1)
        self.stage2 = _stage(2, widths[0], widths[1], stride=2)
        self.stage3 = _stage(3, widths[1], widths[2], stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = MutableLinear(widths[2], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float32 -> (N, num_classes) logits."""
        x = self.stem_activation(self.stem(x))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.classifier(torch.flatten(self.pool(x), 1))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """The sum of `body` and `shortcut`, followed by `activation`."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in, H, W) -> (N, out, H / stride, W / stride)."""
        return self.activation(self.body(x) + self.shortcut(x))  # type: ignore[no-any-return]


# Widths are expressions of choices until a network is built, hence `Any`.
def _stage(number: int, inputs: Any, outputs: Any, stride: int) -> Repeat:
    def blocks(index: int) -> LayerChoice:
        first = index == 0
        arguments = (inputs if first else outputs, outputs, stride if first else 1, first and number > 1)
        return LayerChoice({name: make(*arguments) for name, make in _BLOCKS.items()}, label="block")

    return Repeat(blocks, nni.choice(f"depth{number}", [1, 2]))


def _basic(inputs: Any, outputs: Any, stride: int, projected: bool) -> Residual:
    body = nn.Sequential(conv_bn(inputs, outputs, 3, stride), nn.ReLU(), conv_bn(outputs, outputs, 3))
    return Residual(body, _shortcut(inputs, outputs, stride, projected), nn.ReLU())


def _bottleneck(inputs: Any, outputs: Any, stride: int, projected: bool) -> Residual:
    inner = outputs // 2
    body = nn.Sequential(
        conv_bn(inputs, inner, 1), nn.ReLU(), conv_bn(inner, inner, 3, stride), nn.ReLU(),
        conv_bn(inner, outputs, 1),
    )  # fmt: skip
    return Residual(body, _shortcut(inputs, outputs, stride, projected), nn.ReLU())


def _inverted(inputs: Any, outputs: Any, stride: int, projected: bool) -> Residual:
    inner = inputs * 3
    body = nn.Sequential(
        conv_bn(inputs, inner, 1), nn.ReLU(), conv_bn(inner, inner, 3, stride, groups=inner), nn.ReLU(),
        conv_bn(inner, outputs, 1),
    )  # fmt: skip
    # No activation: the output of an inverted residual is linear.
    return Residual(body, _shortcut(inputs, outputs, stride, projected), nn.Identity())


_BLOCKS = {"basic": _basic, "bottleneck": _bottleneck, "inverted": _inverted}


def _shortcut(inputs: Any, outputs: Any, stride: int, projected: bool) -> nn.Module:
    return conv_bn(inputs, outputs, 1, stride) if projected else nn.Identity()
