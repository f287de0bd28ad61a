"""Weights through a hyperbolic tangent, inputs clipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from slimsearch.compression.lsq import LearnedGrid
from slimsearch.compression.quantization.learned import (
    InputQuantizer,
    InputRange,
    LearnedQuantization,
    WeightQuantizer,
    round_through,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Dorefa(LearnedQuantization):
    """Weights are tanh(w) / max|tanh(w)| on a grid; inputs are clipped to a fixed range.

    Source: Zhou et al. 2016, "DoReFa-Net", eq. 9 and 11, without the quantization of gradients. Three things differ,
    so that a trained network can start from its weights and an int8 file can hold the result: the grid has a point at
    0; the largest weight of a tensor keeps its size, where theirs becomes 1; inputs are clipped to the range that the
    calibration images gave, where theirs is [0, 1]. One scale a tensor, as theirs.
    """

    def weight_quantizer(self, weight: Tensor, bits: int) -> WeightQuantizer:
        return _Tanh(bits, float(weight.abs().max()))

    def input_quantizer(self, observed: InputRange) -> InputQuantizer:
        low = min(observed.low, 0.0)
        scale = max(observed.high - low, 1e-6) / 255
        grid = LearnedGrid(scale, round(-low / scale), learn_zero=False)
        grid.log_scale.requires_grad_(False)
        return grid


class _Tanh(WeightQuantizer):
    reach: Tensor

    def __init__(self, bits: int, reach: float) -> None:
        super().__init__(bits, per_channel=False)
        self.register_buffer("reach", torch.tensor([max(reach, 1e-8)]))

    def scale(self, weight: Tensor) -> Tensor:
        scale: Tensor = self.reach / self.top
        return scale

    def forward(self, weight: Tensor) -> Tensor:
        bent = torch.tanh(weight)
        bent = bent / bent.detach().abs().max().clamp_min(1e-8)
        return round_through(bent * self.top) * self.scale(weight)
