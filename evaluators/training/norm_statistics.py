"""Statistics of batch normalization in short trainings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_MOMENTUM = 0.1  # PyTorch's default
_LEFT = 0.01  # largest share of the statistics before the training in those after it


def follow_training(module: nn.Module, steps: int) -> Callable[[], None]:
    """Let the statistics of batch normalization follow the weights of a training; returns a function that undoes it.

    They are moving averages over the steps. The momentum of 0.01 that torchvision and others give some networks is for
    trainings of many epochs: in short ones, statistics belong to weights of a hundred steps ago.

    Args:
        module: its momenta are increased where they are too small, in place.
        steps: of the training.
    """
    from torch import nn

    least = max(_MOMENTUM, 1 - _LEFT ** (1 / max(1, steps)))
    before = {
        layer: layer.momentum
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.momentum is not None and layer.momentum < least
    }
    for layer in before:
        layer.momentum = least

    def undo() -> None:
        for layer, momentum in before.items():
            layer.momentum = momentum

    return undo
