"""Faster training steps on a CPU: memory, dropout, depthwise convolutions, gradients in channels-last layout."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

# Parameters of glibc's `mallopt`, see its manual page.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**30  # bytes
# Where glibc's adaptive thresholds settle if a program does not set them.
_DEFAULT_TRIM, _DEFAULT_MMAP = 2**26, 2**25  # bytes

_BITS = 16  # random bits for each element: dropout rates are rounded to 1/65,536


@contextlib.contextmanager
def reuse_freed_memory() -> Iterator[None]:
    """Keep large freed blocks in this process until the end of the context, then return them to the system.

    Every training step allocates and frees the same megabytes. Above 64 MiB, glibc may return them to the system after
    each step; the kernel then zeroes every page again at its next use, which took up to a third of the training time.
    No effect with another C library.
    """
    library: Any = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _NEVER)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _DEFAULT_MMAP)
        library.mallopt(_TRIM_THRESHOLD, _DEFAULT_TRIM)
        library.malloc_trim(0)


def exchange_forward(layers: Sequence[nn.Module], forward: Callable[[Any, Tensor], Tensor]) -> Callable[[], None]:
    """Let `layers` compute `forward`, which gets the layer and its input; returns a function that undoes it."""
    for layer in layers:
        layer.forward = partial(forward, layer)

    def undo() -> None:
        for layer in layers:
            del layer.forward

    return undo


def speed_up_dropout(module: nn.Module) -> Callable[[], None]:
    """Let the `nn.Dropout` layers of `module` draw their masks with NumPy, in place; returns a function that undoes it.

    On processors other than Intel's, PyTorch draws one random number after the other for each element: a sixth of the
    training time of `mnist_cnn`. The masks still follow from PyTorch's seed. Layers that work in place, drop whole
    channels, or override `forward` are left alone.
    """
    from torch import nn

    layers = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.Dropout)
        and type(layer).forward is nn.Dropout.forward
        and not layer.inplace
        and 0 < _dropped_values(layer.p) < 2**_BITS
    ]
    return exchange_forward(layers, _dropout_forward)


def _dropout_forward(layer: nn.Dropout, x: Tensor) -> Tensor:
    return dropout(x, layer.p) if layer.training else x


def dropout(x: Tensor, rate: float) -> Tensor:
    """Set each element of `x` to 0 with probability `rate` and scale the others by ``1 / (1 - rate)``; same shape."""
    import torch

    count, threshold = x.numel(), _dropped_values(rate)
    # The seed comes from PyTorch's generator, so that a restored generator state restores the masks too.
    seed = int(torch.randint(2**62, ()))
    words = np.random.SFC64(seed).random_raw(-(-count * _BITS // 64))
    keep = words.view(np.int16)[:count] >= threshold - 2 ** (_BITS - 1)
    # As integers with the bits of the mask's floats, since PyTorch converts booleans to floats slowly.
    flat = torch.from_numpy(np.multiply(keep, _bits_of_scale(threshold, x.dtype))).view(x.dtype)
    mask = flat.as_strided(x.shape, torch.empty_like(x).stride())  # in memory order, which is that of `x`
    return x * mask


@cache
def _bits_of_scale(threshold: int, dtype: torch.dtype) -> Any:
    """The bits of the factor of the elements that remain, as an integer of NumPy of as many bytes."""
    import torch

    scale = torch.tensor([1 / (1 - threshold / 2**_BITS)], dtype=dtype)
    return scale.view(getattr(torch, f"int{8 * scale.element_size()}")).numpy()[0]


def _dropped_values(rate: float) -> int:
    """How many of the 65,536 random values drop an element."""
    values: int = round(rate * 2**_BITS)
    return values


def depthwise_in_float32(module: nn.Module) -> Callable[[], None]:
    """Let depthwise convolutions of `module` compute in float32 under autocast; returns a function that undoes it.

    With a stride, a dilation, several outputs for a channel, or a kernel larger than 3, their gradients in bfloat16
    take up to 35 times as long (oneDNN). Other depthwise convolutions are faster in bfloat16 and stay so, as do
    layers that override `forward`.
    """
    from torch.nn.modules import conv

    own = (conv.Conv1d, conv.Conv2d, conv.Conv3d, conv.ConvTranspose1d, conv.ConvTranspose2d, conv.ConvTranspose3d)
    layers = [
        layer
        for layer in module.modules()
        if isinstance(layer, own)
        and any(type(layer).forward is kind.forward for kind in own)
        and layer.groups == layer.in_channels > 1
        and (
            max(layer.kernel_size) > 3 or max(*layer.stride, *layer.dilation) > 1 or layer.out_channels > layer.groups
            or layer.transposed
        )
    ]  # fmt: skip
    return exchange_forward(layers, _forward_in_float32)


def _forward_in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    import torch

    forward = type(layer).forward
    if not torch.is_autocast_enabled("cpu"):
        return forward(layer, x)  # type: ignore[no-any-return]
    with torch.autocast("cpu", enabled=False):
        return forward(layer, x.float()).to(torch.get_autocast_dtype("cpu"))  # type: ignore[no-any-return]


def keep_channels_last(module: nn.Module) -> Callable[[], None]:
    """Convert gradients of channels-last outputs to channels-last; returns a function that undoes it.

    Behind a flatten, gradients come back contiguous; the layers before it, pooling most of all, then compute in that
    layout and copy tensors many times as large. A layer whose first gradient is already channels-last is left alone
    from then on.
    """
    hooks = [_ChannelsLastHook(layer) for layer in module.modules() if next(layer.children(), None) is None]

    def undo() -> None:
        for hook in hooks:
            hook.remove()

    return undo


class _ChannelsLastHook:
    """Watches the gradient of one layer's output."""

    def __init__(self, layer: nn.Module) -> None:
        self._handle: RemovableHandle = layer.register_forward_hook(self._after_forward)

    def remove(self) -> None:
        self._handle.remove()

    def _after_forward(self, _: nn.Module, __: object, output: object) -> None:
        import torch

        if isinstance(output, torch.Tensor) and output.requires_grad and _only_channels_last(output):
            output.register_hook(self._convert)  # type: ignore[no-untyped-call]

    def _convert(self, gradient: Tensor) -> Tensor | None:
        import torch

        if gradient.is_contiguous() and not gradient.is_contiguous(memory_format=torch.channels_last):
            return gradient.contiguous(memory_format=torch.channels_last)
        self.remove()
        return None


def _only_channels_last(output: Tensor) -> bool:
    """Whether `output` is in channels-last layout alone; images of one pixel or channel are in both layouts."""
    import torch

    return output.ndim == 4 and output.is_contiguous(memory_format=torch.channels_last) and not output.is_contiguous()
