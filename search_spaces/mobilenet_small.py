"""Compact networks of inverted residuals, for images of 32 to 96 pixels."""

from __future__ import annotations

from typing import Any

import nni
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableBatchNorm2d, MutableConv2d, MutableLinear, Repeat
from torch import nn

from slimsearch.search_spaces._nni.weighted import Weighted


class MobileNetSmall(ModelSpace):  # type: ignore[misc]
    """7,558,272 networks of three stages of inverted residuals (Sandler et al. 2018), with ReLU.

    Each stage has a depth, a width, an expansion and a kernel, and may weight the channels of its blocks by what is in
    them (squeeze-and-excitation, Hu et al. 2018, placed as in MobileNetV3, Howard et al. 2019). The stem halves the
    image or leaves it; the second and the third stage halve it, and from 64 pixels on the first one too. So 32x32
    images come to 8x8 or 4x4, and those of 96x96 to 12x12 or 6x6. On 32x32 colour images of ten classes the networks
    have about 7,000 to 920,000 parameters.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, image_size: int = 32) -> None:
        super().__init__()
        if image_size < 16:
            raise ValueError(f"mobilenet_small needs images of at least 16x16 pixels, not {image_size}x{image_size}")
        widths = [
            nni.choice("width0", [8, 12, 16]),
            nni.choice("width1", [12, 16, 24]),
            nni.choice("width2", [24, 32, 48]),
            nni.choice("width3", [48, 64, 96]),
        ]
        self.stem = LayerChoice(
            {name: _convolution(in_channels, widths[0], 3, stride) for name, stride in (("plain", 1), ("strided", 2))},
            label="stem",
        )
        self.stem_activation = nn.ReLU()
        self.stage1 = _stage(1, widths[0], widths[1], stride=1 if image_size < 64 else 2)
        self.stage2 = _stage(2, widths[1], widths[2], stride=2)
        self.stage3 = _stage(3, widths[2], widths[3], stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = MutableLinear(widths[3], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float32 -> (N, num_classes) logits."""
        x = self.stem_activation(self.stem(x))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.classifier(torch.flatten(self.pool(x), 1))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """A few channels are made many, each is filtered on its own, and all are made few again, without activation.

    What comes out is added to what went in, where both have the same shape.
    """

    # Widths and kernel sizes are expressions of choices until a network is built, hence `Any`.
    def __init__(self, inputs: Any, outputs: Any, expansion: Any, kernel: Any, stride: int, weighted: str) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = _convolution(inputs, inner, 1)
        self.activation1 = nn.ReLU()
        self.filter = _convolution(inner, inner, kernel, stride, groups=inner)
        self.activation2 = nn.ReLU()
        self.weight = LayerChoice({"no": nn.Identity(), "yes": Weighted(inner)}, label=weighted)
        self.project = _convolution(inner, outputs, 1)
        self.is_residual = stride == 1 and inputs is outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        y = self.activation2(self.filter(self.activation1(self.expand(x))))
        y = self.project(self.weight(y))
        return x + y if self.is_residual else y  # type: ignore[no-any-return]


def _stage(number: int, inputs: Any, outputs: Any, stride: int) -> Repeat:
    expansion = nni.choice(f"expansion{number}", [2, 4, 6])
    kernel = nni.choice(f"kernel{number}", [3, 5])

    def block(index: int) -> InvertedResidual:
        first = index == 0
        width = inputs if first else outputs
        return InvertedResidual(width, outputs, expansion, kernel, stride if first else 1, f"weighted{number}")

    return Repeat(block, nni.choice(f"depth{number}", [1, 2, 3]))


def _convolution(inputs: Any, outputs: Any, kernel: Any, stride: int = 1, groups: Any = 1) -> nn.Sequential:
    return nn.Sequential(
        MutableConv2d(
            inputs, outputs, kernel_size=kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
        ),
        MutableBatchNorm2d(outputs),
    )
