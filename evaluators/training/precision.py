"""The number format that networks are trained in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from slimsearch.compression import Network

if TYPE_CHECKING:
    from torch import Tensor, nn

_DENSE = 10.0
"""Multiply-accumulates for each number that a layer gives, from which on bfloat16 was slower in no network tried."""


def precision_for(name: str, device: str) -> str:
    """The precision of training: "fp32", "bf16", or "mixed" for what `suited` says of each network.

    Args:
        name: one of these, or "auto": "mixed" on a processor that multiplies bfloat16 natively, "bf16" on such a GPU.
        device: "cpu" or "cuda".
    """
    if name != "auto":
        return name
    import torch

    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    native = any(
        bool(getattr(torch.cpu, flag, bool)()) for flag in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return "mixed" if native else "fp32"


def suited(precision: str, network: Network, images: Tensor) -> str:
    """ "fp32" or "bf16": `precision`, or in place of "mixed" the one in which `network` trains faster.

    Numbers that are only moved, by normalisations, activations and depthwise convolutions, gain nothing in bfloat16 and
    are converted to and fro; what multiplies matrices gains up to a factor of two.

    Args:
        precision: see `precision_for`.
        network: is left in evaluation mode.
        images: (N, C, H, W) float32, only their shape matters.
    """
    if precision != "mixed":
        return precision
    import torch

    moved = 0

    def count(_: nn.Module, __: object, output: object) -> None:
        nonlocal moved
        moved += output.numel() if isinstance(output, torch.Tensor) else 0

    leaves = [layer for layer in network.module.modules() if next(layer.children(), None) is None]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        return "bf16" if network.macs(images) >= _DENSE * moved else "fp32"
    finally:
        for hook in hooks:
            hook.remove()


def autocast(precision: str, device: str) -> contextlib.AbstractContextManager[object]:
    """The context in which a network is run in "fp32" or "bf16"."""
    import torch

    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)
