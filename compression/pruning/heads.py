"""Heads of attention that can be removed whole, as one group of channels for each attention layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def with_plain_attention(network: Network, images: Tensor) -> Network:
    """`network` with a `SelfAttention`, which can lose heads, in place of each attention layer that computes the same.

    These are layers of plain self-attention, without masks, positions or norms of their own.

    Args:
        network: stays unchanged.
        images: (N, C, H, W) float32, real ones, on whose tokens the layers are compared.
    """
    from slimsearch.compression.pruning.self_attention import SelfAttention

    module = network.copy_module().eval()
    names = [
        name
        for name, (layer, x, output) in _calls(module, images[:_IMAGES]).items()
        if not isinstance(layer, SelfAttention) and _is_plain(layer, x, output)
    ]
    if not names:
        return network
    replaced = {**network.structure.get("replaced", {}), **dict.fromkeys(names, ATTENTION)}
    structure = {**network.structure, "replaced": replaced}
    return Network(replaced_attention(module, structure), structure, network.quantization)


def replaced_attention(module: nn.Module, structure: Mapping[str, Any]) -> nn.Module:
    """A copy of `module` with the attention layers that `structure` names replaced, see `with_plain_attention`."""
    module = copy_module(module)
    for name, kind in structure.get("replaced", {}).items():
        if kind == ATTENTION:
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
    """Input and output of the attention layers that run once, on tokens alone, also as queries, keys and values."""
    import torch

    from slimsearch.compression.pruning.self_attention import is_attention

    found: dict[str, tuple[nn.Module, Tensor, Tensor]] = {}
    unusable: set[str] = set()

    def hook(name: str) -> Any:
        def observe(layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            tokens = arguments[0] if arguments else None
            others = [one for one in (*arguments, *named.values()) if one is not tokens]
            output = output[0] if isinstance(output, tuple) else output
            alone = isinstance(tokens, torch.Tensor) and not any(isinstance(one, torch.Tensor) for one in others)
            if name in found or not alone or not isinstance(output, torch.Tensor):
                unusable.add(name)
            else:
                assert tokens is not None
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


def _is_plain(layer: nn.Module, x: Tensor, output: Tensor) -> bool:
    """Whether the `SelfAttention` in place of `layer` computes `output` from `x`."""
    import torch

    replacement = make_replacement(ATTENTION, layer)
    try:
        with torch.no_grad():
            found = replacement(x)
    except Exception:  # `layer` is another kind of attention
        return False
    found = found[0] if isinstance(found, tuple) else found
    if found.shape != output.shape:
        return False
    return bool((found - output).abs().max() <= _ROUNDING * output.abs().max().clamp_min(1e-6))
