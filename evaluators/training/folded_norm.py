"""Batch normalisation behind layers that have none, while they are trained; what is deployed is the layer alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def insert(module: nn.Module, images: Tensor) -> list[str]:
    """Put a batch normalisation behind each layer that has a bias and is followed by no normalisation, in place.

    A network that has none trains faster with it (Ioffe and Szegedy 2015), and once it is trained the normalisation is
    an affine map of each channel, which `fold` takes into weight and bias: parameters and operations are those of the
    network without. The layer that gives the logits, and layers that are used twice, stay as they are.

    Args:
        module: of convolutions and linear layers, and of whatever else.
        images: (N, C, H, W) float32, two or more of what it is trained on.

    Returns:
        the names of the layers.
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
    """Take what `insert` put there into the layers, in place."""
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
    """Names, in the order in which they run."""
    import torch
    from torch import nn

    names = {layer: name for name, layer in module.named_modules()}
    made: dict[
        int, tuple[nn.Module, Tensor]
    ] = {}  # by the identity of an output, which is kept so that it stays its own
    ran: list[nn.Module] = []
    normalised: set[nn.Module] = set()

    def after(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ran.append(layer)
        made[id(output)] = layer, output

    def before_norm(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        normalised.update(made[id(one)][0] for one in inputs if id(one) in made)

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
    outputs = dict(made.values())
    return [
        names[layer]
        for layer in ran[:-1]
        if ran.count(layer) == 1
        and layer not in normalised
        and layer.bias is not None
        and names[layer]
        and outputs[layer].ndim == (4 if isinstance(layer, nn.Conv2d) else 2)
    ]


def _put(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent) if parent else module, own, layer)
