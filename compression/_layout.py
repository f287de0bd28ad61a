"""Memory layouts of networks: channels-last, which is faster, and contiguous, which some networks need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from slimsearch.compression._weights import contiguous_copy

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# Kernels of the two layouts round differently, and a network that rounds itself can magnify it.
_TOLERANCE = 0.02


def layout_for(run: Callable[[torch.memory_format], Sequence[Tensor]]) -> torch.memory_format:
    """Channels-last if a network runs and computes the same in it, otherwise contiguous.

    ``view`` behind a convolution fails in channels-last, and ``as_strided`` or a custom autograd function can silently
    give other numbers.

    Args:
        run: runs the network in a layout; returns its logits, and its gradients if it is to be trained. What it raises
            in contiguous layout is raised.
    """
    import torch

    expected = run(torch.contiguous_format)
    try:
        actual = run(torch.channels_last)
    except Exception:  # a user's module may raise anything
        return torch.contiguous_format
    return torch.channels_last if _equal(expected, actual) else torch.contiguous_format


def set_layout(module: nn.Module, layout: torch.memory_format) -> None:
    """Convert the parameters and buffers of `module`, in place."""
    import torch

    if layout == torch.channels_last:
        module.to(memory_format=layout)  # type: ignore[call-overload]
        return
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            tensor.data = contiguous_copy(tensor)


def _equal(expected: Sequence[Tensor], actual: Sequence[Tensor]) -> bool:
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in actual]:
        return False
    pairs = [
        (one.float().nan_to_num(), other.float().nan_to_num()) for one, other in zip(expected, actual, strict=True)
    ]
    largest = max((float(one.norm()) for one, _ in pairs), default=0.0)
    return all(
        float((one - other).norm()) <= _TOLERANCE * max(float(one.norm()), _TOLERANCE * largest) for one, other in pairs
    )
