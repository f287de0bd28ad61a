"""Access to the weights of a module, including parametrized ones, and to the order of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

_ORIGINAL = ".parametrizations.weight.original"


def parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters by their names without parametrizations."""
    return {name.replace(_ORIGINAL, ".weight"): parameter for name, parameter in module.named_parameters()}


def weights(module: nn.Module) -> dict[str, Tensor]:
    """The values of all parameters, detached, by name."""
    return {name: parameter.detach() for name, parameter in parameters(module).items()}


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """All gradients, detached, by parameter name."""
    return {name: p.grad.detach() for name, p in parameters(module).items() if p.grad is not None}


def contiguous_copy(tensor: Tensor) -> Tensor:
    """A copy with the strides of a new tensor.

    A tensor with a dimension of length 1 can count as contiguous and still have channels-last strides, such as a
    trained weight or an image with one channel. Flattening a result then copies it, which graph analyses mistake for
    another operation.
    """
    import torch

    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device).copy_(tensor.detach())


def make_contiguous(module: nn.Module) -> None:
    """Give every parameter of `module` the strides of a new tensor, in place."""
    for parameter in module.parameters():
        parameter.data = contiguous_copy(parameter)


def layers_in_order(module: nn.Module, images: Tensor) -> list[str]:
    """Names of the Conv2d and Linear layers in the order of their calls; the last one gives the logits."""
    import torch

    names = {layer: name for name, layer in module.named_modules()}
    ran: list[str] = []
    hooks = [
        layer.register_forward_hook(lambda layer, *_: ran.append(names[layer]))
        for layer in names
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    ]
    run_hooked(module, images, hooks)
    return list(dict.fromkeys(ran))


def run_hooked(module: nn.Module, images: Tensor, hooks: Sequence[RemovableHandle]) -> None:
    """Run `module` once on `images`, (N, C, H, W), without gradients; then remove `hooks`."""
    import torch

    try:
        with torch.no_grad():
            module(images)
    finally:
        for hook in hooks:
            hook.remove()
