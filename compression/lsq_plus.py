"""LSQ+: quantization with learned step sizes and offsets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from slimsearch.compression.lsq import LearnedGrid, LearnedScale
from slimsearch.compression.quantization.learned import InputQuantizer, InputRange, LearnedQuantization, WeightQuantizer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LsqPlus(LearnedQuantization):
    """`lsq` with a learned offset for inputs that can be negative, and with other initial scales.

    Source: Bhalgat et al. 2020, "LSQ+": the scale of weights begins at max(|mean - 3 std|, |mean + 3 std|) / top (eq.
    6), that of inputs with their range on the calibration images. The offset is a learned zero point, rounded for use;
    it stays 0 for inputs that are never negative, since a runtime drops the ReLU before such an input.
    """

    def weight_quantizer(self, weight: Tensor, bits: int) -> WeightQuantizer:
        quantizer = LearnedScale(bits, self.per_channel)
        flat = weight.flatten(1) if self.per_channel else weight.flatten()[None]
        mean, deviation = flat.mean(dim=1), flat.std(dim=1, unbiased=False)
        reach = torch.maximum((mean - 3 * deviation).abs(), (mean + 3 * deviation).abs())
        quantizer.start(reach.clamp_min(1e-8) / quantizer.top)
        return quantizer

    def input_quantizer(self, observed: InputRange) -> InputQuantizer:
        low = min(observed.low, 0.0)
        scale = max(observed.high - low, 1e-6) / 255
        return LearnedGrid(scale, -low / scale, learn_zero=not observed.is_positive)
