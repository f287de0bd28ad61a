"""Quantization-aware training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from slimsearch.compression.quantization.learned import InputQuantizer, InputRange, LearnedQuantization, WeightQuantizer

if TYPE_CHECKING:
    from torch import Tensor

_DECAY = 0.99  # of the moving average of an input's range, at each step


@dataclass(frozen=True)
class Qat(LearnedQuantization):
    """Train with weight ranges from the largest value, and with input ranges from a moving average.

    Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference", section 3. Differences: weights are symmetric per channel, and quantization begins without a delay. The
    averages continue until the end.
    """

    def weight_quantizer(self, weight: Tensor, bits: int) -> WeightQuantizer:
        return _Largest(bits, self.per_channel)

    def input_quantizer(self, observed: InputRange) -> InputQuantizer:
        return _MovingRange(observed)


class _Largest(WeightQuantizer):
    def scale(self, weight: Tensor) -> Tensor:
        scale: Tensor = self.largest(weight) / self.top
        return scale

    def forward(self, weight: Tensor) -> Tensor:
        scale = self.scale(weight)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        # PyTorch's kernels need one pass over the weight, the formula four.
        if self.per_channel:
            return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -self.top, self.top)
        return torch.fake_quantize_per_tensor_affine(weight, scale[0], zero[0], -self.top, self.top)


class _MovingRange(InputQuantizer):
    low: Tensor
    high: Tensor

    def __init__(self, observed: InputRange) -> None:
        super().__init__()
        self._positive = observed.is_positive
        self.register_buffer("low", torch.tensor(min(observed.low, 0.0)))
        self.register_buffer("high", torch.tensor(max(observed.high, 1e-6)))

    def grid(self) -> tuple[Tensor, Tensor]:
        scale = (self.high - self.low) / 255
        return scale, (-self.low / scale).round().clamp(0, 255)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                values = x.detach().float()
                self.high.lerp_(values.max().clamp_min(1e-6), 1 - _DECAY)
                if not self._positive:
                    self.low.lerp_(values.min().clamp_max(0.0), 1 - _DECAY)
        scale, zero = self.grid()
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero.int(), 0, 255).to(x.dtype)
