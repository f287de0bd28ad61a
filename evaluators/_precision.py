"""The number format that networks are trained in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

_DENSE = 10.0
"""Multiply-accumulates for each number that a layer gives, from which on bfloat16 paid in every network tried."""


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


def suited(precision: str, module: nn.Module, images: Tensor) -> str:
    """ "fp32" or "bf16": `precision`, or in place of "mixed" the one in which `module` trains faster.

    Numbers that are only moved, by normalisations, activations and depthwise convolutions, gain nothing in bfloat16 and
    are converted to and fro; what multiplies matrices gains up to a factor of two.

    Args:
        precision: see `precision_for`.
        module: left in the mode in which it is.
        images: (N, C, H, W) float32, of which one is looked at.
    """
    if precision != "mixed":
        return precision
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    moved = 0

    def count(_: nn.Module, __: object, output: object) -> None:
        nonlocal moved
        moved += output.numel() if isinstance(output, torch.Tensor) else 0

    leaves = [layer for layer in module.modules() if next(layer.children(), None) is None]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(images[:1])
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    return "bf16" if counter.get_total_flops() / 2 >= _DENSE * moved else "fp32"


def autocast(precision: str, device: str) -> contextlib.AbstractContextManager[object]:
    """The context in which a network is run in "fp32" or "bf16"."""
    import torch

    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)
