"""LSQ: quantization with learned step sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from slimsearch.compression.quantization.learned import InputQuantizer, InputRange, LearnedQuantization, WeightQuantizer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Lsq(LearnedQuantization):
    """Train with the scales of weights and inputs as parameters.

    Source: Esser et al. 2020, "Learned step size quantization". Differences: the parameter is the logarithm of a scale,
    so that the scale stays above 0; the factor on its gradient is omitted, since Adam is invariant to it. Inputs that
    can be negative have a grid symmetric around 0.
    """

    def weight_quantizer(self, weight: Tensor, bits: int) -> WeightQuantizer:
        quantizer = LearnedScale(bits, self.per_channel)
        # 2 <|w|> / sqrt(top), section 2.1; above 4 bits at least the scale that includes the largest weights.
        flat = weight.abs().flatten(1)
        mean = flat.mean(dim=1) if self.per_channel else flat.mean().view(1)
        quantizer.start(torch.maximum(2 * mean / math.sqrt(quantizer.top), quantizer.largest(weight) / quantizer.top)
                        if bits > 4 else 2 * mean / math.sqrt(quantizer.top))  # fmt: skip
        return quantizer

    def input_quantizer(self, observed: InputRange) -> InputQuantizer:
        reach = observed.high / 255 if observed.is_positive else max(-observed.low, observed.high) / 127
        return LearnedGrid(reach, 0.0 if observed.is_positive else 128.0, learn_zero=False)


class LearnedScale(WeightQuantizer):
    """A weight's scale as a parameter."""

    def __init__(self, bits: int, per_channel: bool) -> None:
        super().__init__(bits, per_channel)
        self.log_scale = torch.nn.Parameter(torch.zeros(1))

    def start(self, scale: Tensor) -> None:
        """Set the initial scale, (C_out,) or (1,)."""
        self.log_scale = torch.nn.Parameter(scale.clamp_min(1e-8).log())

    def scale(self, weight: Tensor) -> Tensor:
        return self.log_scale.exp()


class LearnedGrid(InputQuantizer):
    """An input's scale, and perhaps its zero point, as parameters."""

    def __init__(self, scale: float, zero_point: float, learn_zero: bool) -> None:
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.tensor(max(scale, 1e-8)).log())
        self.zero_point = torch.nn.Parameter(torch.tensor(zero_point), requires_grad=learn_zero)

    def grid(self) -> tuple[Tensor, Tensor]:
        zero = self.zero_point.clamp(0, 255)
        return self.log_scale.exp(), zero + (zero.round() - zero).detach()
