"""Bits by measured sensitivity: within the budget, near the best assignment, and where a layer suffers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimsearch.compression import Network, Recipe
from slimsearch.compression.quantization.bit_allocation import BITS, cheapest_bits, weight_sensitivities
from slimsearch.errors import SlimsearchError
from tests.compression.no_training import NoTraining

TRAINING = NoTraining(1, 10, 10, images=128)


class Uneven(nn.Module):
    """What `easy` computes hardly counts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.hard = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3)
        self.easy, self.fc = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 10)
        with torch.no_grad():
            self.fc.weight *= 10

    def forward(self, x: Tensor) -> Tensor:
        x = self.hard(self.stem(x).relu())
        return self.fc((x + 0.02 * self.easy(x)).relu().mean((2, 3)))


@pytest.mark.parametrize("seed", range(20))
def test_the_sum_of_the_changes_is_near_the_smallest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = {name: int(rng.integers(1, 9)) * 100 for name in "abc"}
    changes = {
        name: {bits: float(scale * 4.0**-bits * rng.uniform(0.5, 2)) for bits in BITS}
        for name, scale in zip("abc", 10 ** rng.uniform(0, 4, 3), strict=True)
    }
    total = sum(sizes.values())

    def best(budget: float) -> float:
        every = (dict(zip("abc", own, strict=True)) for own in itertools.product(BITS, repeat=3))
        fitting = [own for own in every if sum(own[name] * sizes[name] for name in "abc") <= budget + 1e-6]
        return min(sum(changes[name][own[name]] for name in "abc") for own in fitting)

    for mean in (2, 3, 4.5, 6, 8):
        found = cheapest_bits(changes, sizes, mean)
        assert sum(found[name] * sizes[name] for name in "abc") <= mean * total + 1e-6
        step = 2 * max(sizes.values())  # the last step of a layer may be too large for what is left
        reached = sum(changes[name][found[name]] for name in "abc")
        assert reached <= best(max(2.0 * total, mean * total - step)) + 1e-12
    assert cheapest_bits(changes, sizes, 8) == {
        name: min(BITS, key=lambda bits, own=own: (own[bits], bits)) for name, own in changes.items()
    }


def test_sensitivities_are_divergences_of_the_answers() -> None:
    network, images = Network(Uneven().eval()), TRAINING.calibration[:16]
    found = weight_sensitivities(network, images, gives_logits=True)
    assert list(found) == ["stem", "hard", "easy", "fc"]
    assert all(own[2] > own[4] > own[8] >= 0 for own in found.values())
    # One layer again: with weights rounded to the scale of the largest, which at 8 bits is the best up to a little.
    module = network.copy_module()
    with torch.no_grad():
        expected = F.softmax(module(images), 1)
        scale = module.fc.weight.abs().amax(1, keepdim=True) / 127
        module.fc.weight.copy_((module.fc.weight / scale).round() * scale)
        divergence = (expected * (expected.log() - F.log_softmax(module(images), 1))).sum(1).mean()
    assert found["fc"][8] == pytest.approx(float(divergence), rel=0.5, abs=1e-7)


def test_layers_that_suffer_get_more_bits() -> None:
    network = Network(Uneven().eval())
    for stage in ("quantize", "weight_only"):
        plan = Recipe.parse(f"{stage}:mean_bits=4.5").apply(network, TRAINING).quantization
        assert plan is not None
        bits = {name: plan.bits.get(name, 8) for name in ("hard", "easy")}
        assert bits["hard"] > bits["easy"]
        sizes = {name: network.module.get_submodule(name).weight.numel() for name in ("stem", "hard", "easy", "fc")}
        assert sum(plan.bits.get(n, 8) * size for n, size in sizes.items()) <= 4.5 * sum(sizes.values())


def test_eight_bits_are_the_plan_without() -> None:
    network = Network(Uneven().eval())
    for stage in ("quantize", "weight_only", "quantize:keep_float=last"):
        one, other = (Recipe.parse(text).apply(network, TRAINING) for text in (stage, f"{stage}:mean_bits=8"))
        assert one.quantization == other.quantization


@pytest.mark.parametrize("text", [
    "quantize:mean_bits=1.5", "weight_only:mean_bits=9", "weight_only:dtype=fp16:mean_bits=4", "lsq:bits=4:mean_bits=5",
    "quantize:max_drop=1:mean_bits=4",
])  # fmt: skip
def test_wrong_values_say_so(text: str) -> None:
    with pytest.raises(SlimsearchError, match="mean_bits"):
        Recipe.parse(text)
