"""Batch normalization inserted for the training of layers without it, and folded into their weights afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def insert(module: nn.Module, images: Tensor) -> list[str]:
    """Insert a batch normalization behind each layer that has a bias and is not followed by a normalization, in place.

    Networks train faster with it (Ioffe and Szegedy 2015). Afterwards it is an affine map of each channel, which `fold`
    merges into weight and bias: the final network has the same parameters and operations as without it. The last layer
    and layers that are called more than once are left alone.

    Args:
        module: with convolutions and linear layers.
        images: (N, C, H, W) float32, two or more training images.

    Returns:
        names of the layers.
    """
    import torch
    from torch import nn

    chosen = _bare_layers(module, images)
    for name in chosen:
        layer = module.get_submodule(name)
        norm: nn.Module
        if isinstance(layer, nn.Conv2d):
            norm = nn.BatchNorm2d(layer.out_channels)
        else:
            assert isinstance(layer, nn.Linear)
            norm = nn.BatchNorm1d(layer.out_features)
        _put(module, name, torch.nn.Sequential(layer, norm.to(layer.weight.device)))
    return chosen


def fold(module: nn.Module, names: list[str]) -> None:
    """Merge the normalizations that `insert` put behind the layers `names` into these layers, in place."""
    import torch

    for name in names:
        pair: Any = module.get_submodule(name)
        layer, norm = pair[0], pair[1]
        with torch.no_grad():
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            layer.weight.mul_(scale.view(-1, *(1 for _ in layer.weight.shape[1:])))
            layer.bias.copy_((layer.bias - norm.running_mean) * scale + norm.bias)
        _put(module, name, layer)


def _bare_layers(module: nn.Module, images: Tensor) -> list[str]:
    """Names of the layers to normalize, in the order of their calls."""
    import torch
    from torch import nn

    names = {layer: name for name, layer in module.named_modules()}
    # By the id of an output; the reference to the output prevents a reuse of its id.
    sources: dict[int, tuple[nn.Module, Tensor]] = {}
    calls: list[nn.Module] = []
    normalized: set[nn.Module] = set()

    def after(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(layer)
        sources[id(output)] = layer, output

    def before_norm(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        normalized.update(sources[id(one)][0] for one in inputs if id(one) in sources)

    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    hooks = [
        layer.register_forward_hook(after) if isinstance(layer, nn.Conv2d | nn.Linear)
        else layer.register_forward_pre_hook(before_norm)
        for layer in names
        if isinstance(layer, nn.Conv2d | nn.Linear | norms[0] | norms[1] | norms[2])
    ]  # fmt: skip
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            module(images)
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    outputs = dict(sources.values())
    return [
        names[layer]
        for layer in calls[:-1]
        if calls.count(layer) == 1
        and layer not in normalized
        and layer.bias is not None
        and names[layer]
        and outputs[layer].ndim == (4 if isinstance(layer, nn.Conv2d) else 2)
    ]


def _put(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)
