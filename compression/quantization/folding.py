"""Folding of BatchNorm into the preceding convolution and its learned scales."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from slimsearch.compression._network import Network
from slimsearch.compression._plain_module import copy_module
from slimsearch.compression._replaced import replace_layer
from slimsearch.compression._weights import layers_in_order, run_hooked
from slimsearch.compression.quantization.plan import Quantization

if TYPE_CHECKING:
    from torch import Tensor, nn

_TOLERANCE = 1e-3


def fold_batch_norm(network: Network, images: Tensor) -> Network:
    """`network` with every BatchNorm2d folded into the Conv2d before it, including the learned scales of its weight.

    A BatchNorm stays if folding would change the logits because other layers read the convolution's output.
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    module, plan = network.copy_module().eval(), network.quantization
    assert plan is not None
    for name, norm_name in _pairs(module, images):
        layer, norm = module.get_submodule(name), module.get_submodule(norm_name)
        assert isinstance(layer, torch.nn.Conv2d)
        assert isinstance(norm, torch.nn.BatchNorm2d)
        trial = copy_module(module)
        with torch.no_grad():
            replace_layer(trial, name, fuse_conv_bn_eval(layer, norm))
            replace_layer(trial, norm_name, torch.nn.Identity())
            before, after = module(images), trial(images)
        if float((before - after).abs().max()) > _TOLERANCE * max(1.0, float(before.abs().max())):
            continue
        plan = _multiplied(plan, name, norm)
        module = trial
    return Network(module, network.structure, plan)


def _multiplied(plan: Quantization, name: str, norm: nn.BatchNorm2d) -> Quantization:
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
    """Names of convolutions and of the BatchNorm layers that read their outputs, if each runs once."""
    import torch

    order = layers_in_order(module, images)
    written: list[tuple[str, Tensor]] = []
    pairs: list[tuple[str, str]] = []
    hooks = []
    for name, layer in module.named_modules():
        if name in order and isinstance(layer, torch.nn.Conv2d):
            hooks.append(layer.register_forward_hook(lambda _, __, out, name=name: written.append((name, out))))
        elif isinstance(layer, torch.nn.BatchNorm2d):

            def read(_: nn.Module, arguments: tuple[Tensor, ...], name: str = name) -> None:
                pairs.extend((conv, name) for conv, out in written if out is arguments[0])

            hooks.append(layer.register_forward_pre_hook(read))
    run_hooked(module, images, hooks)
    ran = [conv for conv, _ in written]
    norms = [norm for _, norm in pairs]
    return [(conv, norm) for conv, norm in pairs if ran.count(conv) == 1 and norms.count(norm) == 1]
