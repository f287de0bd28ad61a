"""Convolutional networks of a few hundred to a hundred thousand parameters, for small grayscale images."""

from __future__ import annotations

from typing import Any

import nni
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableBatchNorm2d, MutableConv2d, MutableLinear, Repeat
from torch import nn

from slimsearch.search_spaces._nni.layers import SqueezeExcitation, check_size, conv_bn


class TinyCnn(ModelSpace):  # type: ignore[misc]
    """746,496 networks: a stem, three stages of one or two blocks, two poolings, and a linear classifier.

    The blocks of a stage are convolutions, separable convolutions (Chollet 2017) or inverted residuals (Sandler et al.
    2018, with ReLU). All stages have optional squeeze-and-excitation (Hu et al. 2018). The poolings, by averages, are
    behind two of the stem, the first and the second stage, which determines most of the cost. The head is global
    average pooling, or an average pooling and a global depthwise convolution (Chen et al. 2018), which keeps positions:
    they matter for digits.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 28) -> None:
        super().__init__()
        check_size("tiny_cnn", image_size)
        widths = [
            nni.choice("width1", [4, 6, 8, 12]),
            nni.choice("width2", [4, 6, 8, 12, 16, 24]),
            nni.choice("width3", [6, 8, 12, 16, 24, 32]),
        ]
        kernel = nni.choice("kernel", [3, 5])
        self.stem = conv_bn(in_channels, widths[0], 3)
        self.stem_activation = nn.ReLU()
        self.pool0 = _pool("early", "middle")
        self.stage1 = _stage(1, widths[0], widths[0], kernel)
        self.pool1 = _pool("early", "late")
        self.stage2 = _stage(2, widths[0], widths[1], kernel)
        self.pool2 = _pool("middle", "late")
        self.stage3 = _stage(3, widths[1], widths[2], kernel)
        self.head = LayerChoice(
            {"mean": nn.AdaptiveAvgPool2d(1), "depthwise": _depthwise_head(widths[2], image_size // 8)}, label="head"
        )
        self.classifier = MutableLinear(widths[2], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float32 -> (N, num_classes) logits."""
        x = self.stage1(self.pool0(self.stem_activation(self.stem(x))))
        x = self.stage3(self.pool2(self.stage2(self.pool1(x))))
        return self.classifier(torch.flatten(self.head(x), 1))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """The sum of `body` and its input."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, width, H, W) -> the same shape."""
        return x + self.body(x)  # type: ignore[no-any-return]


# Widths and kernel sizes are expressions of choices until a network is built, hence `Any`.
def _stage(number: int, inputs: Any, outputs: Any, kernel: Any) -> nn.Sequential:
    def blocks(index: int) -> LayerChoice:
        width = inputs if index == 0 else outputs
        changes = index == 0 and number > 1
        return LayerChoice(
            {name: make(width, outputs, kernel, changes) for name, make in _BLOCKS.items()}, label=f"block{number}"
        )

    weighted = LayerChoice({"no": nn.Identity(), "yes": SqueezeExcitation(outputs)}, label="weighted")
    return nn.Sequential(Repeat(blocks, nni.choice(f"depth{number}", [1, 2])), weighted)


def _plain(inputs: Any, outputs: Any, kernel: Any, changes: bool) -> nn.Module:
    return nn.Sequential(conv_bn(inputs, outputs, kernel), nn.ReLU())


def _separable(inputs: Any, outputs: Any, kernel: Any, changes: bool) -> nn.Module:
    # Without an activation in between: a ReLU there loses too much of a few channels.
    return nn.Sequential(conv_bn(inputs, inputs, kernel, groups=inputs), conv_bn(inputs, outputs, 1), nn.ReLU())


def _inverted(inputs: Any, outputs: Any, kernel: Any, changes: bool) -> nn.Module:
    inner = inputs * 2
    body = nn.Sequential(
        conv_bn(inputs, inner, 1), nn.ReLU(), conv_bn(inner, inner, kernel, groups=inner), nn.ReLU(),
        conv_bn(inner, outputs, 1),
    )  # fmt: skip
    return body if changes else Residual(body)


_BLOCKS = {"plain": _plain, "separable": _separable, "inverted": _inverted}


def _pool(*where: str) -> LayerChoice:
    """An average pooling that is active if the choice `pooled` is one of `where`."""
    layers = {name: nn.AvgPool2d(2) if name in where else nn.Identity() for name in ("early", "middle", "late")}
    return LayerChoice(layers, label="pooled")


def _depthwise_head(width: Any, size: int) -> nn.Sequential:
    convolution = MutableConv2d(width, width, kernel_size=size, groups=width, bias=False)
    return nn.Sequential(nn.AvgPool2d(2), convolution, MutableBatchNorm2d(width))
