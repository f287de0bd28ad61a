"""Initial weights from a trained network of another shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def inherit(module: nn.Module, donor: Mapping[str, Tensor]) -> float:
    """Copy into `module`, in place, what `donor` has of layers of the same names; gives the share of its parameters.

    Of a tensor that is wider or narrower in the donor the part that both have is copied: the first channels (as in
    slimmable networks, Yu et al. 2019), the middle of a kernel (as in Once-for-All, Cai et al. 2020). The rest keeps
    what it was drawn as. What has another number of dimensions is another layer, and stays.

    Args:
        module: new.
        donor: the state of a trained network.
    """
    import torch

    own = module.state_dict()
    layers: dict[str, list[str]] = {}
    for name in own:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    parameters = {name: value.numel() for name, value in module.named_parameters()}
    copied = 0
    with torch.no_grad():
        for names in layers.values():
            if any(name not in donor or donor[name].ndim != own[name].ndim for name in names):
                continue
            for name in names:
                part, of_donor = _shared(own[name].shape, donor[name].shape)
                own[name][part].copy_(donor[name][of_donor])
                copied += own[name][part].numel() if name in parameters else 0
    return copied / sum(parameters.values()) if parameters else 0.0


def _shared(own: Sequence[int], donor: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where in both tensors the part is that both have."""
    parts = []
    for dimension, (a, b) in enumerate(zip(own, donor, strict=True)):
        size = min(a, b)
        in_kernel = dimension > 1
        first = ((a - size) // 2, (b - size) // 2) if in_kernel else (0, 0)
        parts.append((slice(first[0], first[0] + size), slice(first[1], first[1] + size)))
    return tuple(part for part, _ in parts), tuple(part for _, part in parts)
