"""ResNet-18 with variable widths and depths, compatible with torchvision's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import nni
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableBatchNorm2d, MutableConv2d, MutableLinear, Repeat
from torch import Tensor, nn

from slimsearch.search_spaces._nni.layers import check_size

_WIDTHS = (64, 128, 256, 512)


class ResNet18(ModelSpace):  # type: ignore[misc]
    """16,384 networks: four stages, each with 25% to 100% of its channels and one or two blocks.

    The stem has stride 1 or 2, and its max pooling is optional; the published network has stride 2 and pooling, which
    is too much for images below 64 pixels. Layers have the names of torchvision: with ``--init torchvision:resnet18``,
    networks start with the trained weights of their blocks and channels, channels with the largest weights first.

    Source: He et al. 2016.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 1000, image_size: int = 224) -> None:
        super().__init__()
        check_size("resnet18", image_size, 16)
        widths = [
            nni.choice(f"width{number}", [width // 4, width // 2, width * 3 // 4, width])
            for number, width in enumerate(_WIDTHS, start=1)
        ]
        stride = nni.choice("stem_stride", [2, 1])
        self.conv1 = MutableConv2d(in_channels, widths[0], kernel_size=7, stride=stride, padding=3, bias=False)
        self.bn1 = MutableBatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        pooling = {"halved": nn.MaxPool2d(kernel_size=3, stride=2, padding=1), "whole": nn.Identity()}
        self.maxpool = LayerChoice(pooling, label="pooling")
        self.layer1 = _stage(1, widths[0], widths[0], stride=1)
        self.layer2 = _stage(2, widths[0], widths[1], stride=2)
        self.layer3 = _stage(3, widths[1], widths[2], stride=2)
        self.layer4 = _stage(4, widths[2], widths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = MutableLinear(widths[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32 -> (N, num_classes) logits."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]

    @staticmethod
    def arranged(state: Mapping[str, Tensor], in_channels: int) -> dict[str, Tensor]:
        """The weights of a trained ResNet-18 with sorted channels; the network computes the same.

        Within each block, and along each stage, channels are sorted by the sum of their absolute weights (Li et al.
        2017), largest first, so that narrower networks start with the most important ones. For grayscale images, the
        color channels of the first layer are added up.

        Args:
            state: as from ``torchvision.models.resnet18().state_dict()``.
            in_channels: of the data, 1 or 3.

        Raises:
            KeyError: the weights are not those of a ResNet-18.
        """
        sorted_state = {name: value.clone() for name, value in state.items()}
        if in_channels == 1:
            sorted_state["conv1.weight"] = sorted_state["conv1.weight"].sum(dim=1, keepdim=True)
        blocks = [[f"layer{stage}.{block}" for block in (0, 1)] for stage in (1, 2, 3, 4)]
        for block in (name for stage in blocks for name in stage):
            _permute(sorted_state, [f"{block}.conv1", f"{block}.bn1"], [f"{block}.conv2"])
        for number, stage in enumerate(blocks):
            # Layers that write the residual stream of this stage, and layers that read it.
            writers = [f"{block}.{layer}" for block in stage for layer in ("conv2", "bn2")]
            writers += ["conv1", "bn1"] if number == 0 else [f"{stage[0]}.downsample.0", f"{stage[0]}.downsample.1"]
            readers = [f"{block}.conv1" for block in (stage if number == 0 else stage[1:])]
            following = blocks[number + 1][0] if number < 3 else None
            readers += ["fc"] if following is None else [f"{following}.conv1", f"{following}.downsample.0"]
            _permute(sorted_state, writers, readers)
        return sorted_state


def _permute(state: dict[str, Tensor], writers: Sequence[str], readers: Sequence[str]) -> None:
    """Sort the output channels of `writers` by their weights, and the input channels of `readers` alike, in place."""
    convolutions = [f"{name}.weight" for name in writers if state[f"{name}.weight"].ndim == 4]
    order = (
        torch.stack([state[name].abs().sum(dim=(1, 2, 3)) for name in convolutions]).sum(dim=0).argsort(descending=True)
    )
    for name in writers:
        for key in [key for key in state if key.rpartition(".")[0] == name and state[key].ndim]:
            state[key] = state[key][order]
    for name in readers:
        state[f"{name}.weight"] = state[f"{name}.weight"][:, order]


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut, which has a 1x1 convolution if the shape changes."""

    def __init__(self, inputs: Any, outputs: Any, stride: int, projected: bool) -> None:
        super().__init__()
        self.conv1 = MutableConv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = MutableBatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = MutableConv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn2 = MutableBatchNorm2d(outputs)
        self.downsample = None
        if projected:
            shortcut = MutableConv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, MutableBatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))  # type: ignore[no-any-return]


# Widths are expressions of choices until a network is built, hence `Any`.
def _stage(number: int, inputs: Any, outputs: Any, stride: int) -> Repeat:
    def block(index: int) -> Block:
        first = index == 0
        return Block(inputs if first else outputs, outputs, stride if first else 1, first and number > 1)

    return Repeat(block, nni.choice(f"depth{number}", [1, 2]))
