"""The space of NNI's hello-NAS tutorial: two convolutions, for small images."""

from __future__ import annotations

import nni
import torch
import torch.nn.functional as F
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableDropout, MutableLinear
from torch import nn

from slimsearch.search_spaces._nni.layers import check_size


class DepthwiseSeparableConv(nn.Module):
    """A depthwise 3x3 convolution and a pointwise 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, kernel_size=3, groups=in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H - 2, W - 2)."""
        return self.pointwise(self.depthwise(x))  # type: ignore[no-any-return]


class MnistCnn(ModelSpace):  # type: ignore[misc]
    """18 networks: two kinds of second convolution, three dropout rates, three widths of the hidden layer.

    Source: the tutorial "Hello, NAS!" of NNI 3.0, with its labels and its fixed dropout of 0.5 behind the hidden layer.
    Difference: the output is logits, without log-softmax.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 28) -> None:
        super().__init__()
        check_size("mnist_cnn", image_size)
        pooled = (image_size - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, 32, kernel_size=3)
        self.conv2 = LayerChoice([nn.Conv2d(32, 64, kernel_size=3), DepthwiseSeparableConv(32, 64)], label="conv2")
        self.dropout1 = MutableDropout(nni.choice("dropout", [0.25, 0.5, 0.75]))
        self.dropout2 = nn.Dropout(0.5)
        feature = nni.choice("feature", [64, 128, 256])
        self.fc1 = MutableLinear(64 * pooled * pooled, feature)
        self.fc2 = MutableLinear(feature, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float32 -> (N, num_classes) logits."""
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(self.conv2(x), 2)
        x = torch.flatten(self.dropout1(x), 1)  # (N, 64 * pooled * pooled)
        x = self.dropout2(F.relu(self.fc1(x)))
        return self.fc2(x)  # type: ignore[no-any-return]
