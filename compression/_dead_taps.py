"""Taps of convolution kernels that only meet padding, because the map is smaller than the kernel reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimsearch.compression._weights import contiguous_copy, run_hooked
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class LiveTaps:
    """The part of a convolution's kernel that remains, for each spatial dimension.

    Attributes:
        taps: index of the first tap and of the first one behind the last.
        padding: zeros on either side of the input.
    """

    taps: tuple[tuple[int, int], ...]
    padding: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"taps": [list(ends) for ends in self.taps], "padding": list(self.padding)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LiveTaps:
        """The value whose `to_json` is `values`."""
        return cls(tuple((int(first), int(stop)) for first, stop in values["taps"]), tuple(values["padding"]))


def live_taps(module: nn.Module, images: Tensor) -> dict[str, LiveTaps]:
    """What remains of the convolutions with dead taps, by name, without changing a result for inputs of this size.

    A tap is dead if it reads padding at every position of the output. Removed are the dead taps at the ends of a
    kernel, as far as the padding stays equal on both sides, which it does for odd kernels with "same" padding. A
    convolution that runs several times keeps the taps of all its runs. Transposed convolutions, other padding than
    zeros, subclasses with a computation of their own, and weights that are shared or computed stay whole.

    Args:
        module: in evaluation mode.
        images: (N, C, H, W), of which only the shape matters.
    """
    layers = _convolutions(module)
    if not layers:
        return {}
    sizes: dict[str, set[tuple[int, ...]]] = {name: set() for name in layers}

    def observe(name: str, dimensions: int) -> Any:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            sizes[name].add(tuple(arguments[0].shape[-dimensions:]))

        return hook

    hooks = [layer.register_forward_pre_hook(observe(name, len(layer.kernel_size))) for name, layer in layers.items()]
    run_hooked(module, images, hooks)
    found = {}
    for name, layer in layers.items():
        ends = [
            _remaining(layer, dimension, sorted({size[dimension] for size in sizes[name]}))
            for dimension in range(len(layer.kernel_size))
        ]
        remaining = [one for one in ends if one is not None]
        if len(remaining) == len(ends) and [b - a for a, b, _ in remaining] != list(layer.kernel_size):
            found[name] = LiveTaps(tuple((a, b) for a, b, _ in remaining), tuple(padding for *_, padding in remaining))
    return found


def remove_taps(module: nn.Module, live: Mapping[str, LiveTaps]) -> None:
    """Remove all other taps of the named convolutions, in place.

    Raises:
        SlimsearchError: a layer is no convolution with these taps.
    """
    import torch

    for name, remaining in live.items():
        layer: Any = module.get_submodule(name)
        widths = getattr(layer, "kernel_size", ())
        fits = isinstance(layer, torch.nn.modules.conv._ConvNd) and len(remaining.taps) == len(widths) == len(
            remaining.padding
        )
        if not fits or not all(
            0 <= first < stop <= width for (first, stop), width in zip(remaining.taps, widths, strict=True)
        ):
            raise SlimsearchError(f"the architecture has no convolution '{name}' with the recorded taps")
        part = layer.weight[(..., *(slice(first, stop) for first, stop in remaining.taps))]
        layer.weight = torch.nn.Parameter(contiguous_copy(part), requires_grad=layer.weight.requires_grad)
        layer.kernel_size = tuple(stop - first for first, stop in remaining.taps)
        layer.padding = remaining.padding


def _convolutions(module: nn.Module) -> dict[str, Any]:
    """The convolutions that may have dead taps, by name."""
    import torch
    from torch import nn
    from torch.nn.utils import parametrize

    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    forwards = {kind.forward for kind in kinds} | {kind._conv_forward for kind in kinds}
    uses: dict[int, int] = {}
    for layer in module.modules():
        for parameter in layer.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, kinds)
        and {type(layer).forward, type(layer)._conv_forward} <= forwards
        and not parametrize.is_parametrized(layer)
        and isinstance(layer._parameters.get("weight"), torch.nn.Parameter)
        and uses[id(layer.weight)] == 1
        and layer.padding_mode == "zeros"
        and layer.padding != "valid"
        and any(width > 1 for width in layer.kernel_size)
    }


def _remaining(layer: Any, dimension: int, sizes: Sequence[int]) -> tuple[int, int, int] | None:
    """The first tap, the one behind the last, and the padding, in one dimension, for inputs of these sizes.

    None if no equal padding on both sides gives the same output.
    """
    width, stride, dilation = (getattr(layer, label)[dimension] for label in ("kernel_size", "stride", "dilation"))
    reach = dilation * (width - 1)
    before = after = layer.padding[dimension] if layer.padding != "same" else reach // 2
    if layer.padding == "same":
        after = reach - before
    outputs = {size: (size + before + after - reach - 1) // stride + 1 for size in sizes}
    live = [
        tap
        for tap in range(width)
        if any(
            0 <= position * stride - before + tap * dilation < size
            for size, count in outputs.items()
            for position in range(count)
        )
    ]
    if not live:
        return None
    for remaining in range(live[-1] - live[0] + 1, width + 1):
        for first in range(max(0, live[-1] + 1 - remaining), min(live[0], width - remaining) + 1):
            padding = before - first * dilation
            if padding >= 0 and all(
                (size + 2 * padding - dilation * (remaining - 1) - 1) // stride + 1 == count
                for size, count in outputs.items()
            ):
                return first, first + remaining, padding
    return None
