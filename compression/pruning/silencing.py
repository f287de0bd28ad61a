"""Channels out of use: the network that the one without them must equal, and that gradual pruning trains."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slimsearch.compression._weights import weights

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Cut:
    """Channels to remove from a layer and from all layers that depend on it.

    Attributes:
        layer: name of the root of the group.
        output: whether they are output channels of the root.
        channels: their indices.
        silenced: indices of the corresponding output channels in all layers of the group, by name.
        unread: indices of the corresponding input channels of the layers that read them, by name.
        head: whether they are whole heads of an attention layer, the root.
    """

    layer: str
    output: bool
    channels: tuple[int, ...]
    silenced: Mapping[str, tuple[int, ...]]
    unread: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    head: bool = False


def silence(module: nn.Module, cuts: Sequence[Cut]) -> Callable[[], None]:
    """A function that sets the weights that write or read the chosen channels of `module` to zero.

    GroupNorm and LayerNorm layers of `module` compute over the other channels from now on, until `end_silence`.
    """
    import torch

    end_silence(module)
    masks, named = zero_masks(module, cuts), weights(module)
    targets = [(named[name], mask.to(named[name].device)) for name, mask in masks.items()]
    for name, gone in _output_channels(cuts).items():
        layer = module.get_submodule(name)
        if isinstance(layer, torch.nn.GroupNorm) or _is_last_norm(layer):
            layer.register_forward_hook(_NormOfOthers(layer, gone))

    def apply() -> None:
        with torch.no_grad():
            for tensor, mask in targets:
                tensor.masked_fill_(mask, 0.0)

    return apply


def end_silence(module: nn.Module) -> None:
    """Let the norm layers of `module` compute over all channels again; weights stay as they are."""
    for layer in module.modules():
        for key, hook in list(layer._forward_hooks.items()):
            if isinstance(hook, _NormOfOthers):
                del layer._forward_hooks[key]


def zero_masks(module: nn.Module, cuts: Sequence[Cut]) -> dict[str, Tensor]:
    """Masks of the weights that write or read the channels, by parameter name; each can be expanded to its weight."""
    named = weights(module)
    found: dict[str, Tensor] = {}
    writers = ((name, _written, channels) for name, channels in _output_channels(cuts).items())
    readers = ((name, _read, channels) for one in cuts for name, channels in one.unread.items())
    for name, masks, channels in (*writers, *readers):
        for label, mask in masks(module.get_submodule(name), channels):
            full = f"{name}.{label}"
            if full in named:
                found[full] = found[full] | mask if full in found else mask
    return found


def _output_channels(cuts: Sequence[Cut]) -> dict[str, tuple[int, ...]]:
    """Output channels by layer, of all cuts: a norm layer after a concatenation can be part of several."""
    found: dict[str, set[int]] = {}
    for one in cuts:
        for name, channels in one.silenced.items():
            found.setdefault(name, set()).update(channels)
    return {name: tuple(sorted(channels)) for name, channels in found.items() if channels}


def _written(layer: nn.Module, channels: Sequence[int]) -> Iterator[tuple[str, Tensor]]:
    """The weights and biases that produce output channels of a layer: their labels, and masks."""
    import torch

    norms = torch.nn.modules.batchnorm._NormBase | torch.nn.GroupNorm
    if isinstance(layer, torch.nn.MultiheadAttention):
        own = _mask(layer.embed_dim, channels)
        both = own[:, None] | own
        yield "in_proj_weight", both.repeat(3, 1)
        yield "in_proj_bias", own.repeat(3)
        yield "out_proj.weight", both
        yield "out_proj.bias", own
    elif isinstance(layer, torch.nn.modules.conv._ConvNd):
        mask = _mask(layer.out_channels, channels)
        yield "weight", _grouped(layer, mask) if layer.transposed else mask.view(-1, *_ones(layer, 1))
        yield "bias", mask
    elif isinstance(layer, torch.nn.Linear):
        mask = _mask(layer.out_features, channels)
        yield "weight", mask[:, None]
        yield "bias", mask
    elif (isinstance(layer, norms) or _is_last_norm(layer)) and isinstance(layer.weight, torch.Tensor):
        mask = _mask(len(layer.weight), channels)
        yield "weight", mask
        yield "bias", mask


def _read(layer: nn.Module, channels: Sequence[int]) -> Iterator[tuple[str, Tensor]]:
    """The weights that read input channels of a layer."""
    import torch

    if isinstance(layer, torch.nn.modules.conv._ConvNd):
        mask = _mask(layer.in_channels, channels)
        yield "weight", mask.view(-1, *_ones(layer, 1)) if layer.transposed else _grouped(layer, mask)
    elif isinstance(layer, torch.nn.Linear):
        yield "weight", _mask(layer.in_features, channels)


def _mask(width: int, channels: Sequence[int]) -> Tensor:
    """(width,) bool, True at the channels."""
    import torch

    mask = torch.zeros(width, dtype=torch.bool)
    mask[list(channels)] = True
    return mask


def _grouped(layer: nn.modules.conv._ConvNd, mask: Tensor) -> Tensor:
    """A mask of the channels in the second dimension of a weight, whose first one goes through the groups."""
    first = layer.weight.shape[0] // layer.groups
    return mask.view(layer.groups, -1).repeat_interleave(first, dim=0).view(*layer.weight.shape[:2], *_ones(layer, 2))


def _ones(layer: nn.modules.conv._ConvNd, dimensions: int) -> list[int]:
    return [1] * (layer.weight.ndim - dimensions)


def _is_last_norm(layer: nn.Module) -> bool:
    """Whether it is a LayerNorm over the last dimension alone."""
    import torch

    return isinstance(layer, torch.nn.LayerNorm) and len(layer.normalized_shape) == 1


class _NormOfOthers:
    """A forward hook of a GroupNorm or LayerNorm: the norm over the other channels, and 0 in these."""

    def __init__(self, layer: nn.Module, gone: Sequence[int]) -> None:
        import torch

        # A subclass may have a forward of its own, such as one for the channels of (N, C, H, W).
        self._narrow = copy.deepcopy(layer)
        self._narrow._forward_hooks.clear()
        if isinstance(self._narrow, torch.nn.GroupNorm):
            width, self._narrow.num_channels = self._narrow.num_channels, self._narrow.num_channels - len(gone)
        else:
            assert isinstance(self._narrow, torch.nn.LayerNorm)
            (width,) = self._narrow.normalized_shape
            self._narrow.normalized_shape = (width - len(gone),)
        self._plain = type(layer).forward is torch.nn.LayerNorm.forward
        self._width, self._kept = width, (~_mask(width, gone)).nonzero().flatten()

    def __call__(self, layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        import torch

        x = arguments[0]
        dim = -1 if self._plain or x.shape[1] != self._width else 1
        kept = self._kept.to(x.device)
        weights = {name: own[kept] for name, own in layer.named_parameters(recurse=False)}
        normed = torch.func.functional_call(self._narrow, weights, (x.index_select(dim, kept), *arguments[1:]))
        return torch.zeros_like(output).index_copy(dim, kept, normed.to(output.dtype))
