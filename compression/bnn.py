"""Binary weights and inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn.utils import parametrize

from slimsearch.compression._network import Network
from slimsearch.compression._replaced import SIGN_INPUT, make_replacement, replace_layer
from slimsearch.compression._stage import AfterStep, Part, Training, TrainingStage, check_training
from slimsearch.compression._weights import layers_in_order
from slimsearch.compression.quantization.plan import CODEBOOK, Quantization
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Bnn(TrainingStage):
    """Binarize the weights and inputs of all layers except the first and the last.

    Source: Courbariaux et al. 2016, "Binarized neural networks", with the layer's mean magnitude as its scale
    (Rastegari et al. 2016, XNOR-Net), which a trained network needs. Simulated: no CPU runtime has one-bit kernels, so
    the file computes in float32 with weights of two values and the signs of inputs; its packed size, with one bit per
    weight, is for storage only.

    Attributes:
        epochs: length of the training, by default that of the network's training.
        learning_rate: peak of its schedule; by default that of the evaluator.
    """

    is_last: ClassVar[bool] = True

    epochs: int | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        check_training(self)

    @property
    def form(self) -> str:
        return CODEBOOK

    def begin(self, network: Network, training: Training) -> Part:
        module = network.copy_module().eval()
        inner = layers_in_order(module, training.calibration[:2])[1:-1]
        if not inner:
            raise SlimsearchError("this network has no layer between the first and the last to make binary")
        replaced = dict(network.structure.get("replaced", {}))
        means = _mean_inputs(module, training.calibration, inner)
        for name in inner:
            layer = module.get_submodule(name)
            parametrize.register_parametrization(layer, "weight", _Binary(), unsafe=True)
            binary = make_replacement(SIGN_INPUT, layer)
            binary.get_submodule("0").threshold.data.copy_(means[name])  # type: ignore[operator]
            replace_layer(module, name, binary)
            replaced[name] = SIGN_INPUT
        structure: Mapping[str, object] = {**network.structure, "replaced": replaced}
        return Part(Network(module, structure, network.quantization), after_step=[_Clip()], finish=_finish)


class Sign(torch.nn.Module):
    """1 where the input is not below its channel's learned threshold, -1 elsewhere.

    The gradient passes where the input is within 1 of the threshold. Source: Courbariaux et al. 2016, section 1.3 (the
    "hard tanh" estimator); thresholds as in ReActNet (Liu et al. 2020), without which every ReLU output becomes 1.

    Args:
        channels: C of inputs (N, C, H, W) or (..., C).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        centered = x - (self.threshold.view(-1, 1, 1) if x.ndim == 4 else self.threshold)
        signs = torch.where(centered >= 0, 1.0, -1.0).to(x.dtype)
        if not torch.is_grad_enabled():
            return signs
        limited = centered.clamp(-1, 1)
        return signs + (limited - limited.detach())  # exactly two values, with the gradient of `limited`


class _Binary(torch.nn.Module):
    """The sign of each weight times the mean magnitude of the weights."""

    def forward(self, weight: Tensor) -> Tensor:
        signs = torch.where(weight >= 0, 1.0, -1.0) * weight.detach().abs().mean()
        limited = weight.clamp(-1, 1)
        return signs + (limited - limited.detach())


def _mean_inputs(module: nn.Module, images: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Channel means of the layers' inputs, as thresholds that about half of the inputs exceed."""
    means: dict[str, Tensor] = {}

    def observe(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            x = arguments[0]
            means[name] = x.mean(dim=(0, 2, 3)) if x.ndim == 4 else x.flatten(0, -2).mean(dim=0)

        return hook

    hooks = [module.get_submodule(name).register_forward_pre_hook(observe(name)) for name in names]
    with torch.no_grad():
        module(images)
    for handle in hooks:
        handle.remove()
    return means


class _Clip(AfterStep):
    """Clips the real-valued weights to [-1, 1], beyond which their gradient vanishes."""

    def __call__(self, module: nn.Module, step: int, steps: int) -> None:
        with torch.no_grad():
            for layer in module.modules():
                if parametrize.is_parametrized(layer, "weight"):
                    layer.get_parameter("parametrizations.weight.original").clamp_(-1, 1)


def _finish(network: Network) -> Network:
    module = network.copy_module().eval()
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return Network(module, network.structure, Quantization(form=CODEBOOK))
