"""Dropout whose random numbers cost less than the layer that they are for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

_BITS = 16
"""Of randomness for each element: rates are kept to a 65,536th."""


def quicken(module: nn.Module) -> Callable[[], None]:
    """Have the dropouts in `module` draw their elements from NumPy's generator; gives what takes that back.

    PyTorch draws one number after the other for each element on processors that are not Intel's: a sixth of a training
    of `mnist_cnn`. The masks follow from PyTorch's seed all the same. Dropouts that change their input in place, that
    drop whole channels, or that are a class of their own, stay as they are.
    """
    from torch import nn

    chosen = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.Dropout)
        and type(layer).forward is nn.Dropout.forward
        and not layer.inplace
        and 0 < _threshold(layer.p) < 2**_BITS
    ]
    for layer in chosen:
        layer.forward = partial(_forward, layer)  # type: ignore[method-assign]

    def take_back() -> None:
        for layer in chosen:
            del layer.forward

    return take_back


def _forward(layer: nn.Dropout, x: Tensor) -> Tensor:
    return dropped(x, layer.p) if layer.training else x


def dropped(x: Tensor, rate: float) -> Tensor:
    """Elements of `x` with probability `rate` 0, the others larger by so much that the mean stays; the same shape."""
    import torch

    count, threshold = x.numel(), _threshold(rate)
    seed = int(torch.randint(2**62, ()))  # so that what was saved of PyTorch's generator tells of these numbers too
    words = np.random.SFC64(seed).random_raw(-(-count * _BITS // 64))
    # PyTorch compares no unsigned numbers of 16 bits.
    drawn = torch.from_numpy(words.view(np.int16)[:count])
    mask = torch.empty_like(x, requires_grad=False)
    in_memory = torch.as_strided(mask, (count,), (1,))  # whatever the layout, which is that of `x`
    in_memory.copy_(drawn >= threshold - 2 ** (_BITS - 1))
    in_memory.mul_(1 / (1 - threshold / 2**_BITS))
    return x * mask


def _threshold(rate: float) -> int:
    """How many of the numbers that can be drawn drop an element."""
    dropping: int = round(rate * 2**_BITS)
    return dropping
