"""How much flows through the network, without looking at any data."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from slimsearch.evaluators.scores._score import kernels

if TYPE_CHECKING:
    from torch import Tensor

# What the definition knows nothing of: activations along the path, and normalisation. Gates (sigmoid, hardsigmoid,
# softmax) stay: without them a product of two branches would square the flow, and overflow after a dozen of them.
_LEFT_OUT = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Hardtanh, nn.Tanh, nn.Softplus, nn.Softsign, nn.LogSigmoid,
    nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm,
)  # fmt: skip


class Synflow:
    """Logarithm of the sum over the kernels of weight * dR/dweight, R the sum of the outputs for an input of ones.

    All weights are at their absolute value, and the network is the linear one of the definition: normalisation and
    activations pass their input on. ReLU would anyway, where nothing is negative; tanh and ReLU6 would end the flow
    at their bounds. So networks that differ only in their activation have the same score. Activations called as
    functions cannot be left out.

    Source: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow",
    as a score of whole networks after Abdelfattah et al. 2021, "Zero-cost proxies for lightweight NAS", who leave out
    BatchNorm too. In float64: the flow grows with every layer, to 1e100 in networks that are in use. The logarithm
    changes no order.
    """

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        linear = copy.deepcopy(module).requires_grad_(True).double().eval()
        for layer in linear.modules():
            if isinstance(layer, _LEFT_OUT):
                layer.forward = _pass_on  # type: ignore[method-assign]
        with torch.no_grad():
            for tensor in linear.state_dict().values():
                if tensor.is_floating_point():
                    tensor.abs_()
        weights = kernels(linear)
        with torch.enable_grad():
            flow = linear(torch.ones_like(images[:1], dtype=torch.float64)).sum()
            gradients = torch.autograd.grad(flow, weights, allow_unused=True)
        total = sum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True) if g is not None)
        return math.log(total) if total > 0 else -math.inf if total == 0 else math.nan


def _pass_on(images: Tensor) -> Tensor:
    return images
