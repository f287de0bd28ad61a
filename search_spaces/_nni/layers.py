"""Layers and adjustments that several shipped spaces share: image sizes, channels, classes and strides."""

from __future__ import annotations

from typing import Any

import torch
from nni.nas.nn.pytorch import MutableBatchNorm2d, MutableConv2d
from torch import nn

from slimsearch.errors import SlimsearchError

_SMALLEST_MAP = 4  # pixels a side that strides leave at least
# Spaces for CIFAR-10 pool larger images behind the stem, to less than twice this side.
_CIFAR = 32


def check_size(name: str, image_size: int, smallest: int = 8) -> None:
    """Check that images have at least `smallest` pixels a side.

    Raises:
        SlimsearchError: they are smaller.
    """
    if image_size < smallest:
        raise SlimsearchError(
            f"{name} needs images of at least {smallest}x{smallest} pixels, not {image_size}x{image_size}"
        )


# Channels and kernel sizes are expressions of choices until a network is built, hence `Any`.
def conv_bn(inputs: Any, outputs: Any, kernel: Any, stride: int = 1, groups: Any = 1) -> nn.Sequential:
    """A convolution without bias, padded to keep the image size at stride 1, and batch normalization."""
    return nn.Sequential(
        MutableConv2d(
            inputs, outputs, kernel_size=kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
        ),
        MutableBatchNorm2d(outputs),
    )


class SqueezeExcitation(nn.Module):
    """Scales each channel by a factor in (0, 1), computed from the means of all channels (Hu et al. 2018)."""

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


def halvings(image_size: int, most: int) -> int:
    """How often an image can be halved, at most `most` times, so that 4 pixels a side are left."""
    count = 0
    while count < most and -(-image_size // 2 ** (count + 1)) >= _SMALLEST_MAP:
        count += 1
    return count


def stem_pooling(image_size: int) -> list[nn.Module]:
    """Max pooling behind the stem of a space for CIFAR-10, for images from 64 pixels; none for smaller ones."""
    factor = 1
    while image_size // (2 * factor) >= _CIFAR:
        factor *= 2
    return [nn.MaxPool2d(factor)] if factor > 1 else []


def with_in_channels(convolution: Any, in_channels: int) -> Any:
    """A copy of a convolution for another number of input channels, with new weights."""
    if hasattr(convolution, "trace_kwargs"):  # an NNI layer with open choices
        return type(convolution)(**{**convolution.args, "in_channels": in_channels})
    return nn.Conv2d(
        in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        bias=convolution.bias is not None,
    )


def with_out_features(linear: Any, out_features: int) -> Any:
    """A copy of a linear layer with another number of outputs, with new weights."""
    if hasattr(linear, "trace_kwargs"):
        return type(linear)(**{**linear.args, "out_features": out_features})
    return nn.Linear(linear.in_features, out_features, bias=linear.bias is not None)


def remove_strides(module: nn.Module) -> None:
    """Set the stride of every convolution in `module` to 1, in place."""
    strided: list[Any] = [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    for convolution in strided:
        convolution.stride = (1, 1)
        if hasattr(convolution, "trace_kwargs"):
            convolution.trace_kwargs["stride"] = 1
