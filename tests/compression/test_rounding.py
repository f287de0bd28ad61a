"""Rounding to few bits: on the grid of each channel, and with less error than rounding each weight to the nearest."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimsearch.compression import Network, Quantization
from slimsearch.compression.quantization.rounding import nearest, round_weights

IMAGES = torch.randn(64, 8, 9, 9, generator=torch.Generator().manual_seed(0)).relu()
IMAGES += 0.5 * IMAGES[:, :1]  # channels that depend on each other
LAYERS = {
    "plain": lambda: nn.Conv2d(8, 12, 3),
    "same": lambda: nn.Conv2d(8, 12, (3, 2), padding="same", dilation=2),
    "valid": lambda: nn.Conv2d(8, 12, 3, padding="valid"),
    "strided": lambda: nn.Conv2d(8, 12, 3, stride=2, padding=1),
    "grouped": lambda: nn.Conv2d(8, 12, 3, groups=2, padding=(1, 0)),
    "depthwise": lambda: nn.Conv2d(8, 16, 3, groups=8),
    "linear": lambda: nn.Linear(9, 12),
    "no bias": lambda: nn.Conv2d(8, 12, 3, bias=False),
    "one channel is 0": lambda: _zeroed(nn.Conv2d(8, 12, 3)),
}


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    with torch.no_grad():
        layer.weight[3] = 0
    return layer


def _error(layer: nn.Module, weight: Tensor, expected: Tensor) -> float:
    with torch.no_grad():
        changed = layer(IMAGES)
        return float((changed - expected).square().mean())


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("kind", LAYERS)
def test_less_error_than_the_nearest(kind: str, bits: int) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(LAYERS[kind]()).eval()
    network = Network(module, {}, Quantization(bits={"0": bits}))
    rounded = round_weights(network, IMAGES)
    known = rounded.quantization.learned["0"]
    assert known.weight_bits == bits
    assert known.input_scale is None
    multiples = rounded.module[0].weight.flatten(1) / torch.tensor(known.weight_scales)[:, None]
    assert torch.allclose(multiples, multiples.round(), atol=1e-4)
    assert float(multiples.abs().max()) <= 2 ** (bits - 1) - 1 + 1e-4

    simple = network.copy_module()
    with torch.no_grad():
        expected = module(IMAGES)
        simple[0].weight.copy_(nearest(simple[0].weight, bits))
        errors = [float((other(IMAGES) - expected).square().mean()) for other in (rounded.module, simple)]
        axes = (0, 1, 2) if kind == "linear" else (0, 2, 3)
        shift = (rounded.module(IMAGES) - expected).mean(axes).abs().max()
    assert errors[0] < 0.8 * errors[1]
    if kind != "no bias":
        assert float(shift) < 1e-5, "the means of the channels stay"


def test_many_positions_are_sampled_and_layers_that_run_twice_are_rounded_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x).relu())

    images = torch.randn(32, 4, 48, 48, generator=torch.Generator().manual_seed(0))
    rounded = round_weights(Network(Twice().eval(), {}, Quantization(bits={"conv": 4})), images)
    with torch.no_grad():
        expected, found = Twice().eval()(images), rounded.module(images)
    assert float((found - expected).square().mean()) < 0.02 * float(expected.var())
