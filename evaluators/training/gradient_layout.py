"""Gradients in the memory layout of what they are of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle


def keep_channels_last(module: nn.Module) -> Callable[[], None]:
    """Have gradients in `module` reach channels-last outputs of layers in that order; gives what takes that back.

    Where images become vectors, gradients come back in the contiguous order, and what is before, most of all pooling,
    then computes in that order and copies what is many times as large. Layers whose gradients come as they should are
    left alone from the first step on.
    """
    kept = [_Kept(layer) for layer in module.modules() if next(layer.children(), None) is None]

    def take_back() -> None:
        for one in kept:
            one.remove()

    return take_back


class _Kept:
    """What looks at the gradients of one layer's output."""

    def __init__(self, layer: nn.Module) -> None:
        self._handle: RemovableHandle = layer.register_forward_hook(self._after)

    def remove(self) -> None:
        self._handle.remove()

    def _after(self, _: nn.Module, __: object, output: object) -> None:
        import torch

        if isinstance(output, torch.Tensor) and output.requires_grad and _only_channels_last(output):
            output.register_hook(self._in_order)  # type: ignore[no-untyped-call]

    def _in_order(self, gradient: Tensor) -> Tensor | None:
        import torch

        if gradient.is_contiguous() and not gradient.is_contiguous(memory_format=torch.channels_last):
            return gradient.contiguous(memory_format=torch.channels_last)
        self.remove()
        return None


def _only_channels_last(output: Tensor) -> bool:
    """Vectors, and images of one pixel or channel, are in both orders at once."""
    import torch

    return output.ndim == 4 and output.is_contiguous(memory_format=torch.channels_last) and not output.is_contiguous()
