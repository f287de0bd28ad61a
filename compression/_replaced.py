"""Replacement layers, built without weights from the name of their kind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from torch import nn

FACTORED, IDENTITY, ATTENTION = "factored", "identity", "attention"
SIGN_INPUT = "sign-input"
"""Kind of a replaced layer, in the structure of a network, that computes with the signs of its inputs."""


def make_replacement(kind: str, layer: nn.Module) -> nn.Module:
    """The layers that replace `layer`; the caller sets their widths and weights.

    "factored": two layers for a Linear or a 1x1 Conv2d, the first without bias; three for another Conv2d: 1x1, its
    kernel, 1x1.
    "sign-input": the signs of the input relative to thresholds, then `layer`.
    "identity": the input.
    "attention": a `SelfAttention`, for an attention. The kind can end with its `AttentionForm` as JSON.

    Raises:
        SlimsearchError: the kind is unknown, or does not apply to the layer.
    """
    import torch
    from torch import nn

    if kind == IDENTITY:
        return nn.Identity()
    if kind.startswith(ATTENTION):
        from slimsearch.compression.pruning.self_attention import AttentionForm, SelfAttention, is_attention

        if is_attention(layer):
            form = json.loads(kind.removeprefix(ATTENTION) or "null")
            if form is None:
                return SelfAttention.of(layer)
            return SelfAttention.of(layer, AttentionForm(**{**form, "writers": tuple(form["writers"])}))
    if kind == SIGN_INPUT and isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
        from slimsearch.compression.bnn import Sign

        return nn.Sequential(Sign(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels), layer)
    if kind == FACTORED and isinstance(layer, torch.nn.Linear):
        return nn.Sequential(
            nn.Linear(layer.in_features, 1, bias=False),
            nn.Linear(1, layer.out_features, bias=layer.bias is not None),
        )
    if kind == FACTORED and isinstance(layer, torch.nn.Conv2d):
        core = nn.Conv2d(
            1, 1, layer.kernel_size, layer.stride, layer.padding, layer.dilation, bias=False,  # type: ignore[arg-type]
            padding_mode=layer.padding_mode,
        )  # fmt: skip
        last = nn.Conv2d(1, layer.out_channels, 1, bias=layer.bias is not None)
        if layer.kernel_size == (1, 1):
            return nn.Sequential(core, last)
        return nn.Sequential(nn.Conv2d(layer.in_channels, 1, 1, bias=False), core, last)
    raise SlimsearchError(f"a {type(layer).__name__} cannot be '{kind}'")


def replace_layer(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Replace the layer `name` of `module` by `layer`."""
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)
