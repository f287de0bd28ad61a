"""Residual blocks: parts of a network that return their input if all their weights are zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimsearch.compression._plain_module import copy_module
from slimsearch.compression._replaced import IDENTITY, make_replacement, replace_layer
from slimsearch.compression._weights import run_hooked

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Block:
    """A residual block.

    Attributes:
        name: of the module.
        shape: of its input and its output, for one image.
        change: squared distance of the output from the input, as a share of the input's square, the mean of images.
    """

    name: str
    shape: tuple[int, ...]
    change: float


def residual_blocks(module: nn.Module, images: Tensor) -> list[Block]:
    """The residual blocks of a network, in the order of their calls.

    A block is a module with layers inside that runs once, takes and gives one tensor of the same shape, returns its
    input if all its weights are zero, and has no such module inside. The network runs without its blocks.

    Args:
        module: in evaluation mode.
        images: (N, C, H, W), real ones.
    """
    calls = _calls(module, images[:2])
    found: dict[str, tuple[int, ...]] = {}
    for name in sorted(calls, key=lambda name: -name.count(".")):
        if any(inner.startswith(f"{name}.") for inner in found):
            continue
        if _returns_its_input(module.get_submodule(name), calls[name]):
            found[name] = tuple(calls[name].shape[1:])
    in_order = [name for name in calls if name in found]
    if not _runs_without(module, in_order, images[:2]):
        in_order = [name for name in in_order if _runs_without(module, [name], images[:2])]
        if not _runs_without(module, in_order, images[:2]):
            return []
    changes = _changes(module, in_order, images)
    return [Block(name, found[name], changes[name]) for name in in_order]


def skip(module: nn.Module, names: Sequence[str]) -> None:
    """Replace blocks of `module` by their input, in place."""
    for name in names:
        replace_layer(module, name, make_replacement(IDENTITY, module.get_submodule(name)))


def _calls(module: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The inputs of the modules that may be blocks, by name, in the order in which they end."""
    import torch

    inputs: dict[str, Tensor] = {}
    several: set[str] = set()

    def hook(name: str) -> Any:
        def observe(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            if name in inputs:
                several.add(name)
            alone = len(arguments) == 1 and not named and isinstance(arguments[0], torch.Tensor)
            if alone and isinstance(output, torch.Tensor) and arguments[0].shape == output.shape:
                inputs[name] = arguments[0].clone()
            else:
                several.add(name)

        return observe

    hooks = [
        part.register_forward_hook(hook(name), with_kwargs=True)
        for name, part in module.named_modules()
        if name and any(part.children()) and any(True for _ in part.parameters())
    ]
    run_hooked(module, images, hooks)
    return {name: tensor for name, tensor in inputs.items() if name not in several}


def _returns_its_input(block: nn.Module, x: Tensor) -> bool:
    import torch

    empty = copy_module(block)
    with torch.no_grad():
        for parameter in empty.parameters():
            parameter.zero_()
        return torch.equal(empty(x.clone()), x)


def _runs_without(module: nn.Module, names: Sequence[str], images: Tensor) -> bool:
    import torch

    shorter = copy_module(module)
    skip(shorter, names)
    try:
        with torch.no_grad():
            return bool(shorter(images).shape == module(images).shape)
    except Exception:  # a module that accesses its parts may raise anything
        return False


def _changes(module: nn.Module, names: Sequence[str], images: Tensor) -> dict[str, float]:
    found: dict[str, float] = {}

    def hook(name: str) -> Any:
        def observe(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            x = arguments[0].flatten(1)
            shares = (output.flatten(1) - x).square().sum(1) / x.square().sum(1).clamp_min(1e-12)
            found[name] = float(shares.mean())

        return observe

    run_hooked(module, images, [module.get_submodule(name).register_forward_hook(hook(name)) for name in names])
    return found
