"""LeNet-5 with variable widths, kernel sizes and activation."""

from __future__ import annotations

import nni
import torch
import torch.nn.functional as F
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableLinear
from torch import nn

from slimsearch.search_spaces._nni.layers import check_size


class LeNet(ModelSpace):  # type: ignore[misc]
    """1,728 networks: two convolutions and three linear layers, as LeNet-5 (LeCun et al. 1998) in NNI's tutorials.

    The default, ``conv1=6, conv2=16, kernel1=5, kernel2=5, fc1=120, fc2=84``, has 44,426 parameters on 28x28 grayscale
    images of ten classes. The convolutions have no padding, as in LeNet.
    """

    DEFAULT = {  # noqa: RUF012 - a constant
        "activation": "relu",
        "conv1": 6,
        "conv2": 16,
        "fc1": 120,
        "fc2": 84,
        "kernel1": 5,
        "kernel2": 5,
    }

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 28) -> None:
        super().__init__()
        check_size("lenet", image_size, 20)
        conv1 = nni.choice("conv1", [4, 6, 8, 12])
        conv2 = nni.choice("conv2", [8, 16, 24, 32])
        kernel1 = nni.choice("kernel1", [3, 5])
        kernel2 = nni.choice("kernel2", [3, 5])
        fc1 = nni.choice("fc1", [32, 64, 120])
        fc2 = nni.choice("fc2", [32, 64, 84])
        # Image sides after each convolution and pooling, as expressions of the kernel sizes.
        side1 = (image_size - kernel1 + 1) // 2
        side2 = (side1 - kernel2 + 1) // 2
        self.conv1 = MutableConv2d(in_channels, conv1, kernel_size=kernel1)
        self.conv2 = MutableConv2d(conv1, conv2, kernel_size=kernel2)
        self.fc1 = MutableLinear(conv2 * side2 * side2, fc1)
        self.fc2 = MutableLinear(fc1, fc2)
        self.fc3 = MutableLinear(fc2, num_classes)
        # One module per use, for quantizers and hooks; the common label makes them one choice.
        self.activation1 = _activation()
        self.activation2 = _activation()
        self.activation3 = _activation()
        self.activation4 = _activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float32 -> (N, num_classes) logits."""
        x = F.max_pool2d(self.activation1(self.conv1(x)), 2)
        x = F.max_pool2d(self.activation2(self.conv2(x)), 2)
        x = torch.flatten(x, 1)  # (N, conv2 * side2 * side2)
        x = self.activation3(self.fc1(x))
        x = self.activation4(self.fc2(x))
        return self.fc3(x)  # type: ignore[no-any-return]


def _activation() -> LayerChoice:
    return LayerChoice({"relu": nn.ReLU(), "hardswish": nn.Hardswish(), "tanh": nn.Tanh()}, label="activation")
