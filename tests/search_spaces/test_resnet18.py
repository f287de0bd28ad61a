"""The space around ResNet-18: the largest network is torchvision's, and smaller ones begin with its best channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision

from slimsearch.evaluators.training.reuse import copy_matching_weights
from slimsearch.search_spaces import ModelSpace


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace.load("resnet18", (3, 64, 64), 1000)


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    """As if it had been trained: no statistics and no scales that could be mixed up unseen."""
    torch.manual_seed(0)
    module = torchvision.models.resnet18()
    for one in module.modules():
        if isinstance(one, torch.nn.BatchNorm2d):
            one.running_mean.normal_(0, 0.1)
            one.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(one.weight, 0.5, 1.5)
            torch.nn.init.normal_(one.bias, 0, 0.1)
    return module.eval()


def _largest(space: ModelSpace) -> dict[str, Any]:
    return {**{c.label: c.values[-1] for c in space.choices}, "stem_stride": 2, "pooling": "halved"}


def test_the_largest_network_is_the_published_one(space: ModelSpace, trained: torch.nn.Module) -> None:
    module = space.build(_largest(space)).eval()
    assert copy_matching_weights(module, space.code.arranged(trained.state_dict(), 3)) == 1.0
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(module(images), trained(images), atol=1e-4)


def test_a_narrower_network_starts_with_the_largest_channels(space: ModelSpace, trained: torch.nn.Module) -> None:
    state = trained.state_dict()
    module = space.build({**_largest(space), "width4": 128, "depth4": 1})
    assert copy_matching_weights(module, space.code.arranged(state, 3)) == 1.0
    inner = state["layer4.0.conv1.weight"].abs().sum(dim=(1, 2, 3)).sort(descending=True).values
    # Its inputs are those of a stage that is as wide as ever, in another order.
    assert torch.allclose(module.layer4[0].conv1.weight.abs().sum(dim=(1, 2, 3)), inner[:128], rtol=1e-4)


def test_grayscale_images_get_the_sum_of_the_color_channels(trained: torch.nn.Module) -> None:
    space = ModelSpace.load("resnet18", (1, 64, 64), 1000)
    module = space.build(_largest(space)).eval()
    copy_matching_weights(module, space.code.arranged(trained.state_dict(), 1))
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(module(images), trained(images.expand(2, 3, 64, 64)), atol=1e-4)


def test_every_stem_works_on_the_smallest_images() -> None:
    space = ModelSpace.load("resnet18", (3, 16, 16), 10)
    for stride in (1, 2):
        for pooling in ("halved", "whole"):
            space.check({**_largest(space), "stem_stride": stride, "pooling": pooling}, "meta")
