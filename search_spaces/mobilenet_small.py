"""Small networks of inverted residuals, for images of 32 to 96 pixels."""

from __future__ import annotations

from typing import Any

import nni
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableLinear, Repeat
from torch import nn

from slimsearch.search_spaces._nni.layers import SqueezeExcitation, check_size, conv_bn


class MobileNetSmall(ModelSpace):  # type: ignore[misc]
    """7,558,272 networks of three stages of inverted residuals (Sandler et al. 2018), with ReLU.

    Each stage has a depth, a width, an expansion and a kernel size, and optional squeeze-and-excitation (Hu et al.
    2018, placed as in MobileNetV3, Howard et al. 2019). The stem has stride 1 or 2. The second and the third stage
    halve the image; from 64 pixels, the first one does too. Images of 32 pixels a side end at 8 or 4, images of 96 at
    12 or 6. On 32x32 color images of ten classes the networks have about 7,000 to 920,000 parameters.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, image_size: int = 32) -> None:
        super().__init__()
        check_size("mobilenet_small", image_size, 16)
        widths = [
            nni.choice("width0", [8, 12, 16]),
            nni.choice("width1", [12, 16, 24]),
            nni.choice("width2", [24, 32, 48]),
            nni.choice("width3", [48, 64, 96]),
        ]
        self.stem = LayerChoice(
            {name: conv_bn(in_channels, widths[0], 3, stride) for name, stride in (("plain", 1), ("strided", 2))},
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
    """1x1 expansion, depthwise convolution and linear 1x1 projection, with a shortcut if the shape is unchanged."""

    # Widths and kernel sizes are expressions of choices until a network is built, hence `Any`.
    def __init__(self, inputs: Any, outputs: Any, expansion: Any, kernel: Any, stride: int, weighted: str) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = conv_bn(inputs, inner, 1)
        self.activation1 = nn.ReLU()
        self.filter = conv_bn(inner, inner, kernel, stride, groups=inner)
        self.activation2 = nn.ReLU()
        self.weight = LayerChoice({"no": nn.Identity(), "yes": SqueezeExcitation(inner)}, label=weighted)
        self.project = conv_bn(inner, outputs, 1)
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
