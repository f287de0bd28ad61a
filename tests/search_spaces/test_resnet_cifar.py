"""The residual space: sizes, images that it takes, and one module a use."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces import ModelSpace

SMALLEST = {
    "block": "bottleneck", "depth1": 1, "depth2": 1, "depth3": 1, "stem": "strided",
    "width1": 16, "width2": 32, "width3": 48,
}  # fmt: skip
LARGEST = {
    "block": "basic", "depth1": 2, "depth2": 2, "depth3": 2, "stem": "plain", "width1": 32, "width2": 64, "width3": 112
}  # fmt: skip


def test_sizes() -> None:
    space = ModelSpace.load("resnet_cifar", (3, 32, 32), 10)
    assert space.size == 1296
    small, large = (sum(p.numel() for p in space.build(point).parameters()) for point in (SMALLEST, LARGEST))
    assert 10_000 < small < 20_000
    assert 500_000 < large < 650_000


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 20, 20), (3, 32, 32), (1, 64, 64)])
def test_takes_images_from_16_pixels_on(shape: tuple[int, int, int]) -> None:
    space = ModelSpace.load("resnet_cifar", shape, 7)
    for block in ("basic", "bottleneck", "inverted"):
        for stem in ("plain", "strided"):
            space.check({**SMALLEST, "block": block, "stem": stem})


def test_smaller_images_are_errors() -> None:
    with pytest.raises(SlimsearchError, match="at least 16x16 pixels"):
        ModelSpace.load("resnet_cifar", (3, 15, 15), 10)


@pytest.mark.parametrize("block", ["basic", "bottleneck", "inverted"])
def test_each_activation_is_used_once(block: str) -> None:
    module = ModelSpace.load("resnet_cifar", (3, 32, 32), 10).build({**LARGEST, "block": block})
    calls: list[nn.Module] = []
    for layer in module.modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda layer, images, output: calls.append(layer))
    module(torch.zeros(2, 3, 32, 32))
    assert len(calls) == len(set(calls)) > 5
