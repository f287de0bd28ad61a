"""Modules as users bring them, made plain: wrappers removed, parametrizations folded into weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError, describe_error

if TYPE_CHECKING:
    from torch import Tensor, nn


def copy_module(module: nn.Module) -> nn.Module:
    """A copy of `module`, which may hold results of its last forward pass; these are detached in the copy.

    Raises:
        SlimsearchError: the module cannot be copied.
    """
    results = {id(tensor): tensor.detach() for layer in module.modules() for tensor in _results(vars(layer), 3)}
    try:
        return copy.deepcopy(module, dict(results))
    except Exception as error:  # whatever the parts of a module raise
        raise SlimsearchError(f"{type(module).__name__} cannot be copied: {describe_error(error)}") from error


def _results(value: Any, depth: int) -> Iterator[Tensor]:
    """The tensors in attributes and containers that a computation has left, which PyTorch does not copy."""
    import torch

    if isinstance(value, torch.Tensor):
        if not value.is_leaf:
            yield value
    elif depth and isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _results(item, depth - 1)


def unwrapped(module: nn.Module) -> nn.Module:
    """`module` without `torch.compile`, DataParallel and DistributedDataParallel, also of its parts.

    Raises:
        SlimsearchError: a part is a TorchScript module, whose layers cannot be changed.
    """
    import torch

    module = _inner(module)
    if any(_inner(part) is not part for part in module.modules()):
        module = copy_module(module)
        for parent in list(module.modules()):
            for name, child in list(parent.named_children()):
                setattr(parent, name, _inner(child))
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            where = f"its part '{name}'" if name else "the model"
            raise SlimsearchError(f"{where} is a TorchScript module: give the nn.Module that was scripted or traced")
    return module


def _inner(module: nn.Module) -> nn.Module:
    import torch

    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(module, wrappers):
            module = module.module
        elif type(module).__name__ == "OptimizedModule" and isinstance(module._orig_mod, torch.nn.Module):
            module = module._orig_mod
        else:
            return module


def has_parametrizations(module: nn.Module) -> bool:
    """Whether a weight of `module` is computed from others before each use."""
    from torch.nn.utils import parametrize

    return any(parametrize.is_parametrized(layer) or any(_weight_hooks(layer)) for layer in module.modules())


def fold_parametrizations(module: nn.Module) -> None:
    """Replace computed weights of `module` by plain ones of their values, in place, in evaluation mode.

    Covers `torch.nn.utils.parametrize` with its weight and spectral norms, their older forms, and the masks of
    `torch.nn.utils.prune`.
    """
    import torch
    from torch.nn.utils import parametrize, prune
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    module.eval()
    for layer in module.modules():
        for hook in list(_weight_hooks(layer)):
            if isinstance(hook, WeightNorm):
                torch.nn.utils.remove_weight_norm(layer, hook.name)
            elif isinstance(hook, SpectralNorm):
                torch.nn.utils.remove_spectral_norm(layer, hook.name)
                for hooks in (layer._state_dict_hooks, layer._load_state_dict_pre_hooks):  # PyTorch leaves its own
                    for key, own in list(hooks.items()):
                        if "spectral_norm" in type(getattr(own, "hook", own)).__module__:
                            del hooks[key]
            else:
                prune.remove(layer, hook._tensor_name)  # type: ignore[no-untyped-call]
        if parametrize.is_parametrized(layer):
            # PyTorch changes the class of a parametrized layer, which its copies share.
            kind = type(layer)
            layer.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))
            for name in list(layer.parametrizations):  # type: ignore[arg-type]
                with torch.enable_grad():  # a weight without gradient would become a buffer
                    parametrize.remove_parametrizations(layer, name, leave_parametrized=True)


def _weight_hooks(layer: nn.Module) -> Iterator[Any]:
    """The hooks of a layer that compute a weight before each call."""
    from torch.nn.utils import prune
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm | SpectralNorm | prune.BasePruningMethod):
            yield hook
