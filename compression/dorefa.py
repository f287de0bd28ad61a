"""DoReFa quantization: tanh-transformed weights and clipped inputs."""

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
    """Train with weights tanh(w) / max|tanh(w)| on a grid, and with inputs clipped to a fixed range.

    Source: Zhou et al. 2016, "DoReFa-Net", eq. 9 and 11, without the quantization of gradients, with one scale per
    tensor. Differences, for a start from trained weights and an int8 file: the grid has a point at 0; the largest
    weight of a tensor stays unchanged instead of becoming 1; inputs are clipped to their range on the calibration
    images instead of [0, 1].
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
