"""Folding of BatchNorm into the preceding layer and its learned scales."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from slimsearch.compression._network import Network
from slimsearch.compression._plain_module import copy_module
from slimsearch.compression._replaced import replace_layer
from slimsearch.compression._weights import run_hooked
from slimsearch.compression.quantization.plan import Quantization

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

_TOLERANCE = 1e-3


def fold_batch_norm(network: Network, images: Tensor) -> Network:
    """`network` with every BatchNorm folded into the convolution or Linear before it, and into its learned scales.

    A subclass of BatchNorm may apply layers of its own to the result, such as an activation: these stay. A BatchNorm
    stays if folding would change the logits, as where other layers read the output of the layer before it.
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    module, plan = network.copy_module().eval(), network.quantization
    assert plan is not None
    for name, norm_name in _pairs(module, images):
        layer: Any = module.get_submodule(name)
        norm: Any = module.get_submodule(norm_name)
        trial = copy_module(module)
        with torch.no_grad():
            # A Linear has its weight's outputs first, as a convolution.
            replace_layer(trial, name, fuse_conv_bn_eval(layer, norm, getattr(layer, "transposed", False)))
            replace_layer(trial, norm_name, torch.nn.Sequential(*trial.get_submodule(norm_name).children()))
            before, after = module(images), trial(images)
        if float((before - after).abs().max()) > _TOLERANCE * max(1.0, float(before.abs().max())):
            continue
        plan = _multiplied(plan, name, norm)
        module = trial
    return Network(module, network.structure, plan)


def _multiplied(plan: Quantization, name: str, norm: _BatchNorm) -> Quantization:
    import torch

    known = plan.learned.get(name)
    if known is None:
        return plan
    assert norm.running_var is not None
    gain = norm.weight if norm.affine else torch.ones_like(norm.running_var)
    gain = (gain.detach() / (norm.running_var + norm.eps).sqrt()).abs()
    scales = (torch.tensor(known.weight_scales) * gain).clamp_min(1e-12)
    learned = {**plan.learned, name: replace(known, weight_scales=tuple(scales.tolist()))}
    return replace(plan, learned=learned)


def _pairs(module: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Names of layers with weights and of the BatchNorm layers that read their outputs, if each runs once."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.conv import _ConvNd

    written: list[tuple[str, bool, Tensor, int]] = []
    pairs: list[tuple[str, str]] = []
    hooks = []
    for name, layer in module.named_modules():
        linear = isinstance(layer, torch.nn.Linear)
        # No dimension of the weight of a transposed convolution in groups has all output channels.
        if linear or (isinstance(layer, _ConvNd) and not (layer.transposed and layer.groups > 1)):

            def write(_: nn.Module, __: object, out: Tensor, name: str = name, linear: bool = linear) -> None:
                if isinstance(out, torch.Tensor):
                    written.append((name, linear, out, out._version))

            hooks.append(layer.register_forward_hook(write))
        elif isinstance(layer, _BatchNorm) and layer.running_mean is not None:

            def read(_: nn.Module, arguments: tuple[Tensor, ...], name: str = name) -> None:
                pairs.extend(
                    (own, name)
                    for own, linear, out, version in written
                    if arguments and version == out._version and _is_output(arguments[0], out, linear)
                )

            hooks.append(layer.register_forward_pre_hook(read))
    run_hooked(module, images, hooks)
    ran = [name for name, *_ in written]
    norms = [norm for _, norm in pairs]
    return [(name, norm) for name, norm in pairs if ran.count(name) == 1 and norms.count(norm) == 1]


def _is_output(x: Tensor, out: Tensor, linear: bool) -> bool:
    """Whether the second dimension of `x` has the output channels of a layer, whose output is `out`.

    Those of a Linear are in the last dimension, and a network may flatten the others to read them by a BatchNorm1d.
    """
    if not linear:
        return x is out
    return x.shape[1:] == out.shape[-1:] and x.data_ptr() == out.data_ptr() and x.numel() == out.numel()
