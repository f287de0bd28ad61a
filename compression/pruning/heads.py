"""Heads of attention that can be removed whole, as one group of channels for each attention layer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from slimsearch.compression._network import Network
from slimsearch.compression._plain_module import copy_module
from slimsearch.compression._replaced import ATTENTION, make_replacement, replace_layer
from slimsearch.compression.pruning._torch_pruning import Group, Member

if TYPE_CHECKING:
    from torch import Tensor, nn

_IMAGES = 2
# Largest difference of results of the same attention, computed in another order, relative to the largest result.
_ROUNDING = 1e-4
_EQUAL = 2e-6  # with such a difference, other forms of the attention are not tried


def with_plain_attention(network: Network, images: Tensor) -> Network:
    """`network` with a `SelfAttention`, which can lose heads, in place of each attention layer that computes the same.

    These are layers of plain self-attention, without masks or positions of their own, and without norms other than a
    LayerNorm of the tokens.

    Args:
        network: stays unchanged.
        images: (N, C, H, W) float32, real ones, on whose tokens the layers are compared.
    """
    from slimsearch.compression.pruning.self_attention import SelfAttention

    module = network.copy_module().eval()
    found: dict[str, str] = {}
    # Those inside of others are first: a module around attention alone computes the same.
    for name, (layer, x, output) in _calls(module, images[:_IMAGES]).items():
        inside = any(other.startswith(f"{name}.") for other in found)
        if not (inside or isinstance(layer, SelfAttention)) and (kind := _plain_kind(layer, x, output)) is not None:
            found[name] = kind
    if not found:
        return network
    replaced = {**network.structure.get("replaced", {}), **found}
    structure = {**network.structure, "replaced": replaced}
    return Network(replaced_attention(module, structure), structure, network.quantization)


def replaced_attention(module: nn.Module, structure: Mapping[str, Any]) -> nn.Module:
    """A copy of `module` with the attention layers that `structure` names replaced, see `with_plain_attention`."""
    module = copy_module(module)
    for name, kind in structure.get("replaced", {}).items():
        if kind.startswith(ATTENTION):
            replace_layer(module, name, make_replacement(kind, module.get_submodule(name)))
    return module


def head_groups(module: nn.Module) -> tuple[list[Group], list[nn.Module]]:
    """The groups of the heads of each `SelfAttention` in `module`, and the layers that write these heads.

    The channels of a group are those of all heads; its root is the attention layer.

    Source: Michel et al. 2019, "Are sixteen heads really better than one?".
    """
    from slimsearch.compression.pruning.self_attention import SelfAttention

    groups = []
    for layer in module.modules():
        if isinstance(layer, SelfAttention) and layer.num_heads > 1:
            width = layer.proj.in_features
            rows = range(layer.qkv.out_features)
            members = (
                Member(layer, True, (), (), False),
                Member(layer.qkv, True, tuple(rows), tuple(row % width for row in rows), True),
                Member(layer.proj, False, tuple(range(width)), tuple(range(width)), True),
            )
            groups.append(Group(layer, True, width, 1, members, layer.head_dim))
    return groups, [group.members[1].layer for group in groups]


def remove_heads(module: nn.Module, name: str, channels: Sequence[int]) -> None:
    """Remove the heads with these channels from the `SelfAttention` called `name` of `module`, in place."""
    layer: Any = module.get_submodule(name)
    replace_layer(module, name, layer.without({channel // layer.head_dim for channel in channels}))


def _calls(module: nn.Module, images: Tensor) -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    """Input and output of the attention layers that run once, on tokens alone, also as queries, keys and values.

    They are in the order in which they end.
    """
    import torch

    from slimsearch.compression.pruning.self_attention import SelfAttention, is_attention

    found: dict[str, tuple[nn.Module, Tensor, Tensor]] = {}
    unusable: set[str] = set()

    def hook(name: str) -> Any:
        def observe(layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            given = {id(one): one for one in (*arguments, *named.values()) if isinstance(one, torch.Tensor)}
            if isinstance(layer, torch.nn.MultiheadAttention | SelfAttention) and isinstance(output, tuple):
                output = output[0]
            if name in found or len(given) != 1 or not isinstance(output, torch.Tensor):
                unusable.add(name)
            else:
                (tokens,) = given.values()
                found[name] = layer, tokens.detach().clone(), output.detach().clone()

        return observe

    hooks = [
        layer.register_forward_hook(hook(name), with_kwargs=True)
        for name, layer in module.named_modules()
        if name and is_attention(layer)
    ]
    if not hooks:
        return {}
    trained = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    try:
        with torch.enable_grad():  # without, `nn.TransformerEncoder` does not call its attention
            module.requires_grad_(True)(images)
    finally:
        for one in hooks:
            one.remove()
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(trained[name])
    return {name: call for name, call in found.items() if name not in unusable}


def _plain_kind(layer: nn.Module, x: Tensor, output: Tensor) -> str | None:
    """The kind of the `SelfAttention` in place of `layer` that computes `output` from `x`, see `make_replacement`."""
    from slimsearch.compression.pruning.self_attention import attention_forms

    others = [f"{ATTENTION} {json.dumps(asdict(form))}" for form in attention_forms(layer)[1:]]
    differences: dict[str, float] = {}
    for kind in (ATTENTION, *others):
        differences[kind] = _difference(make_replacement(kind, layer), x, output)
        if differences[kind] <= _EQUAL:
            return kind
    best = min(differences, key=lambda kind: differences[kind])
    return best if differences[best] <= _ROUNDING else None


def _difference(replacement: nn.Module, x: Tensor, output: Tensor) -> float:
    """The largest difference of what `replacement` computes from `x`, relative to the largest output."""
    import torch

    try:
        with torch.no_grad():
            found = replacement(x)
    except Exception:  # it is in place of another kind of attention
        return math.inf
    found = found[0] if isinstance(found, tuple) else found
    if found.shape != output.shape:
        return math.inf
    return float((found - output).abs().max() / output.abs().max().clamp_min(1e-6))
