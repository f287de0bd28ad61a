"""Spaces of NNI's hub for other images than those they were written for: channels, classes and strides."""

from __future__ import annotations

from typing import Any

from torch import nn

SMALLEST = 8
# The side of the smallest feature map that strides should leave.
_SIDE = 4
# Spaces for CIFAR-10 see larger images through a stem that shrinks them to less than twice its size.
_CIFAR = 32


def check_size(name: str, image_size: int) -> None:
    """Refuse images that nothing is left of.

    Raises:
        ValueError: with the least size.
    """
    if image_size < SMALLEST:
        raise ValueError(f"{name} needs images of at least {SMALLEST}x{SMALLEST} pixels, not {image_size}x{image_size}")


def halvings(image_size: int, most: int) -> int:
    """How often an image can be halved, at most `most` times, until fewer than 4 pixels a side would be left."""
    count = 0
    while count < most and -(-image_size // 2 ** (count + 1)) >= _SIDE:
        count += 1
    return count


def shrinking(image_size: int) -> list[nn.Module]:
    """What follows the stem of a space for CIFAR-10: nothing, or for images from 64 pixels on a pooling."""
    factor = 1
    while image_size // (2 * factor) >= _CIFAR:
        factor *= 2
    return [nn.MaxPool2d(factor)] if factor > 1 else []


def for_channels(convolution: Any, in_channels: int) -> Any:
    """The same convolution of images of another number of channels, with new weights."""
    if hasattr(convolution, "trace_kwargs"):  # choices are open
        return type(convolution)(**{**convolution.args, "in_channels": in_channels})
    return nn.Conv2d(
        in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        bias=convolution.bias is not None,
    )


def for_classes(linear: Any, num_classes: int) -> Any:
    """The same linear layer with another number of outputs, and new weights."""
    if hasattr(linear, "trace_kwargs"):
        return type(linear)(**{**linear.args, "out_features": num_classes})
    return nn.Linear(linear.in_features, num_classes, bias=linear.bias is not None)


def unstride(module: nn.Module) -> None:
    """Let every convolution of `module` keep the size of its image, in place."""
    strided: list[Any] = [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    for convolution in strided:
        convolution.stride = (1, 1)
        if hasattr(convolution, "trace_kwargs"):
            convolution.trace_kwargs["stride"] = 1
