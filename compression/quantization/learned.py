"""Quantization-aware training: quantizers of weights and inputs, and the base of stages that train with them.

The quantizer of a weight is a parametrization of the layer; that of an input runs before the layer. Layers that read
the same tensor share its quantizer, since the tensor has one scale in the file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from slimsearch.compression._network import Network
from slimsearch.compression._stage import Part, Training, TrainingStage, check_training, require
from slimsearch.compression._weights import layers_in_order, run_hooked
from slimsearch.compression.quantization.bit_allocation import allocate_bits
from slimsearch.compression.quantization.plan import DEPLOYED_BITS, STATIC, LearnedRange, Quantization

INPUT = "input_quantizer"
_TOP = 255  # of uint8 inputs
_SMALLEST = 1e-8


def round_through(x: Tensor) -> Tensor:
    """Round `x`, with the gradient of the identity (straight-through, Bengio et al. 2013)."""
    return x + (x.round() - x).detach()


class WeightQuantizer(nn.Module):
    """Rounds a weight to a grid: integers in [-top, top] times a scale.

    Args:
        bits: the grid has 2^bits - 1 points.
        per_channel: one scale per output channel, not one per tensor.
    """

    def __init__(self, bits: int, per_channel: bool) -> None:
        super().__init__()
        self.bits, self.per_channel, self.top = bits, per_channel, 2 ** (bits - 1) - 1

    @abstractmethod
    def scale(self, weight: Tensor) -> Tensor:
        """The scale, (C_out,) or (1,), above 0."""

    def forward(self, weight: Tensor) -> Tensor:
        """The weight on its grid, (C_out, ...)."""
        scale = self.scale(weight).view(-1, *[1] * (weight.ndim - 1))
        return round_through((weight / scale).clamp(-self.top, self.top)) * scale

    def largest(self, weight: Tensor) -> Tensor:
        """The largest absolute value per channel or tensor, (C_out,) or (1,), above 0."""
        flat = weight.detach().abs().flatten(1)
        return (flat.amax(dim=1) if self.per_channel else flat.max().view(1)).clamp_min(_SMALLEST)


class InputQuantizer(nn.Module):
    """Rounds the input of layers to a uint8 grid."""

    @abstractmethod
    def grid(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, both scalars."""

    def forward(self, x: Tensor) -> Tensor:
        """The input on its grid, in any shape; computed in float32."""
        scale, zero = self.grid()
        integers = (round_through(x.float() / scale) + zero).clamp(0, _TOP)
        return ((integers - zero) * scale).to(x.dtype)


@dataclass(frozen=True)
class InputRange:
    """The smallest and largest value of a layer input on the calibration images."""

    low: float
    high: float

    @property
    def is_positive(self) -> bool:
        """Whether no value is below 0, as after a ReLU; the zero point must then be 0, since runtimes drop the ReLU."""
        return self.low >= 0


@dataclass(frozen=True)
class LearnedQuantization(TrainingStage):
    """Train with simulated integers, then export the learned ranges.

    Quantizes the weights and inputs of all convolutions and linear layers; inputs to 8 bits, as in the deployed file.
    BatchNorm stays unchanged and is folded on export. The file computes with int8, and stores weights of fewer bits in
    so many; the metric `packed_kib` is its size with Huffman codes, which no runtime reads.

    Attributes:
        bits: of weights, 2 to 8; below 8 the first and the last layer have 8.
        mean_bits: in place of `bits`: of a weight, on average, from 2 to 8; the layers that suffer least get fewer (see
            `allocate_bits`).
        per_channel: one scale per output channel of a weight.
        target: "any" for the same outputs on every x86 processor (8 bits are then 7, so that sums of two products do
            not saturate); "vnni" for finer weights, which need a processor with VNNI instructions.
        epochs: length of the training, by default that of the network's training.
        learning_rate: peak of the schedule, by default 1e-3.
    """

    is_last: ClassVar[bool] = True

    bits: int = 8
    per_channel: bool = True
    target: str = "any"
    epochs: int | None = None
    learning_rate: float | None = 1e-3
    mean_bits: float = 8.0

    def __post_init__(self) -> None:
        check_training(self)
        require(2 <= self.bits <= 8, f"bits {self.bits} is not between 2 and 8")
        require(2 <= self.mean_bits <= 8, f"mean_bits {self.mean_bits:g} is not in [2, 8]")
        require(8 in (self.bits, self.mean_bits), "bits and mean_bits exclude each other")
        require(self.target in DEPLOYED_BITS, f"target '{self.target}' is none of {', '.join(DEPLOYED_BITS)}")

    @property
    def form(self) -> str:
        return STATIC

    @abstractmethod
    def weight_quantizer(self, weight: Tensor, bits: int) -> WeightQuantizer:
        """A quantizer for a layer's weight before the training, (C_out, ...)."""

    @abstractmethod
    def input_quantizer(self, observed: InputRange) -> InputQuantizer:
        """A quantizer for a layer input."""

    @final
    def begin(self, network: Network, training: Training) -> Part:
        module, images = network.copy_module().eval(), training.calibration
        order = layers_in_order(module, images[:2])
        ends = (order[0], order[-1]) if order else ()
        deployed = DEPLOYED_BITS[self.target]
        if self.mean_bits < 8:
            bits = allocate_bits(network, images, self.mean_bits, gives_logits=training.gives_logits)
        else:
            bits = {name: self.bits for name in order if name not in ends}

        def weight(name: str, value: Tensor) -> WeightQuantizer:
            return self.weight_quantizer(value, min(bits.get(name, deployed), deployed))

        attach(module, images, weight, self.input_quantizer)
        return Part(Network(module, network.structure, network.quantization), finish=self._finish)

    def _finish(self, network: Network) -> Network:
        module = network.copy_module()
        learned = detach(module)
        return Network(
            module, network.structure, Quantization("minmax", self.per_channel, self.target, learned=learned)
        )


def attach(
    module: nn.Module,
    images: Tensor,
    weight: Callable[[str, Tensor], WeightQuantizer],
    activation: Callable[[InputRange], InputQuantizer],
) -> None:
    """Add quantizers to every convolution and linear layer of `module`, in place.

    Args:
        module: in evaluation mode.
        images: (N, C, H, W) for the calibration of inputs.
        weight: constructs a quantizer from a layer's name and weight.
        activation: constructs a quantizer from the range of an input.
    """
    order = layers_in_order(module, images[:2])
    readers, ranges = _inputs(module, images, order)
    for key, layers in readers.items():
        quantizer = activation(ranges[key])
        for name in layers:
            layer = module.get_submodule(name)
            assert isinstance(layer, nn.Linear | nn.Conv2d)
            setattr(layer, INPUT, quantizer)
            layer.register_forward_pre_hook(_quantize_input)
            parametrize.register_parametrization(layer, "weight", weight(name, layer.weight.detach()), unsafe=True)


def detach(module: nn.Module) -> dict[str, LearnedRange]:
    """Remove the quantizers, in place; weights stay on their grids. Returns the learned ranges by layer name."""
    module.eval()
    learned: dict[str, LearnedRange] = {}
    for name, layer in list(module.named_modules()):
        if not isinstance(layer, nn.Linear | nn.Conv2d) or not parametrize.is_parametrized(layer, "weight"):
            continue
        raw = layer.get_parameter("parametrizations.weight.original")
        quantizer = layer.get_submodule("parametrizations.weight.0")
        activation = layer.get_submodule(INPUT)
        assert isinstance(quantizer, WeightQuantizer)
        assert isinstance(activation, InputQuantizer)
        with torch.no_grad():
            scales, (scale, zero) = quantizer.scale(raw).flatten(), activation.grid()
        learned[name] = LearnedRange(
            weight_scales=tuple(float(s) for s in scales),
            weight_bits=quantizer.bits,
            input_scale=float(scale),
            input_zero_point=round(float(zero)),
        )
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        layer.weight.requires_grad_(raw.requires_grad)
        delattr(layer, INPUT)
        for key, hook in list(layer._forward_pre_hooks.items()):
            if hook is _quantize_input:
                del layer._forward_pre_hooks[key]
    return learned


def _quantize_input(layer: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (getattr(layer, INPUT)(arguments[0]), *arguments[1:])


def _inputs(
    module: nn.Module, images: Tensor, order: list[str]
) -> tuple[Mapping[int, list[str]], Mapping[int, InputRange]]:
    """The layers that read each input tensor, and the tensor's range, by tensor."""
    tensors: list[Tensor] = []  # references, so that no two tensors have the same id
    readers: dict[int, list[str]] = {}
    ranges: dict[int, InputRange] = {}

    def observe(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            x = arguments[0]
            tensors.append(x)
            if name in [n for names in readers.values() for n in names]:
                key = next(k for k, names in readers.items() if name in names)  # a layer that runs twice
            else:
                key = id(x)
                readers.setdefault(key, []).append(name)
            low, high = float(x.min()), float(x.max())
            known = ranges.get(key, InputRange(low, high))
            ranges[key] = InputRange(min(low, known.low), max(high, known.high))

        return hook

    hooks = [module.get_submodule(name).register_forward_pre_hook(observe(name)) for name in order]
    run_hooked(module, images, hooks)
    return readers, ranges
