"""Elastic networks: which blocks and channels can be left out, and that the networks without them are what they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from slimsearch.compression import ElasticNetwork, Network, Recipe, analysis_file
from slimsearch.compression.elastic.blocks import residual_blocks
from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces import ElasticSpace, FixedModel

SHAPE = (3, 32, 32)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.second(self.norm(self.first(x)).relu())).relu()


class Gate(nn.Module):
    """Equal shapes, but not the input without its weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale(x)


def small() -> nn.Module:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 32, 3, stride=4), nn.ReLU())
    plain = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())
    stage = nn.Sequential(*(Residual(32) for _ in range(5)))
    end = nn.Sequential(Gate(32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 10))
    return nn.Sequential(stem, plain, stage, end).eval()


def images(count: int = 4) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def around(module: nn.Module) -> tuple[ElasticNetwork, ElasticSpace]:
    elastic = ElasticNetwork.of(Network(module), images())
    return elastic, ElasticSpace(FixedModel(lambda: module, SHAPE, 10), elastic.depths, elastic.widths)


def test_blocks_are_what_returns_its_input_without_weights() -> None:
    assert [block.name for block in residual_blocks(small(), images())] == [f"2.{i}" for i in range(5)]
    resnet = torchvision.models.resnet18(num_classes=10).eval()
    found = [block.name for block in residual_blocks(resnet, images())]
    assert found == ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    transformer = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10).eval()
    names = [block.name for block in residual_blocks(transformer, images())]
    assert names == [f"encoder.layers.encoder_layer_{i}" for i in range(2)]


def test_the_block_that_matters_least_is_skipped_first() -> None:
    module = small()
    with torch.no_grad():
        module.get_submodule("2.3.second").weight.zero_()
        module.get_submodule("2.3.second").bias.zero_()
    elastic, _ = around(module)
    (depth,) = elastic.depths
    assert (depth.label, depth.numbers, depth.blocks[0]) == ("skip.2", (0, 1, 2), "2.3")
    shorter = elastic.apply(Network(module), {"skip.2": 1})
    with torch.no_grad():
        assert torch.equal(shorter.module(images()), module(images()))
    assert shorter.params < Network(module).params


def test_the_channels_that_matter_most_remain(tmp_path: Path) -> None:
    """Channels of zeros go first: without them the network gives the same."""
    module = small()
    idle = range(0, 32, 2)
    with torch.no_grad():
        for name in ("first", "norm"):
            for tensor in module.get_submodule(f"2.1.{name}").parameters():
                tensor[idle] = 0
    elastic, _ = around(module)
    label = next(one.label for one in elastic.widths if "2.1.first" in one.layers)
    half = elastic.apply(Network(module), {label: 0.5})
    assert half.module.get_submodule("2.1.first").out_channels == 16
    with torch.no_grad():
        expected = module(images())
        assert torch.allclose(half.module(images()), expected, atol=1e-5)
    half.save(tmp_path)
    again = Network.load(small(), tmp_path)
    with torch.no_grad():
        assert torch.allclose(again.module(images()), expected, atol=1e-5)


def test_a_narrow_network_is_factored_further(tmp_path: Path) -> None:
    elastic, space = around(small())
    architecture = {"skip.2": 2, space.choices[-1].label: 0.5}
    network = elastic.apply(Network(small()), architecture)
    found = Recipe.parse("low_rank:energy=0.5:epochs=0").apply(network, _NoTraining())
    assert set(found.structure["replaced"].values()) == {"identity", "factored"}
    assert found.params < network.params
    found.save(tmp_path)
    with torch.no_grad():
        assert torch.equal(Network.load(small(), tmp_path).module(images()), found.module(images()))


class _NoTraining:
    seed, epochs = 0, 1
    calibration = images()

    def fit(self, network: Network, **settings: object) -> Network:
        return network


def test_equal_networks_are_equal_points() -> None:
    """Any two different candidates have networks of different shapes."""
    elastic, space = around(small())
    rng = np.random.default_rng(0)
    seen: dict[str, str] = {}
    for _ in range(25):
        candidate = space.candidate(space.sample(rng))
        network = elastic.apply(Network(space.build({})), candidate.architecture)
        shapes = str([(name, tuple(tensor.shape)) for name, tensor in network.module.named_parameters()])
        assert seen.setdefault(shapes, candidate.key) == candidate.key, candidate
        assert space.candidate(space.point(candidate)) == candidate


def test_the_given_network_has_an_empty_architecture() -> None:
    elastic, space = around(small())
    reference = space.reference()
    assert reference is not None
    assert space.candidate(reference).architecture == {}
    network = Network(small())
    assert elastic.apply(network, {}) is network


def test_an_analysis_is_read_again(tmp_path: Path) -> None:
    file, network = tmp_path / "elastic.json", Network(small())
    elastic, _ = around(small())
    analysis_file.write(file, elastic, network)
    found = analysis_file.read_or_analyze(file, network, images())
    assert found == elastic
    architecture = {elastic.widths[0].label: 0.5, elastic.depths[0].label: 1}
    with torch.no_grad():
        first, second = (one.apply(network, architecture).module(images()) for one in (elastic, found))
    assert torch.equal(first, second)

    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "whole": ["what only the file says"]}))
    assert analysis_file.read_or_analyze(file, network, images()).whole == ("what only the file says",)
    other = small()
    with torch.no_grad():
        other.get_submodule("1.0").weight.mul_(2)
    assert analysis_file.read_or_analyze(file, Network(other), images()).whole == elastic.whole, "other weights"
    del content["widths"][0]["shares"]
    file.write_text(json.dumps(content))
    assert analysis_file.read_or_analyze(file, network, images()) == elastic, "a damaged file"


def test_random_networks_have_all_sizes() -> None:
    _, space = around(small())
    rng = np.random.default_rng(0)
    points = [space.sample(rng) for _ in range(200)]
    whole = [np.mean([point[c.label] == c.values[0] for c in space.choices if c.label in point]) for point in points]
    assert min(np.histogram(whole, bins=4, range=(0, 1))[0]) > 20


def test_what_cannot_get_smaller_says_why() -> None:
    with pytest.raises(SlimsearchError, match="'1'"):
        ElasticNetwork.of(Network(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)).eval()), images())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "widths", "blocks"),
    [
        ("resnet50", 8, 12), ("mobilenet_v2", 8, 10), ("densenet121", 8, 0), ("efficientnet_b0", 8, 9),
        ("convnext_tiny", 8, 18), ("shufflenet_v2_x0_5", 8, 0), ("swin_t", 8, 12), ("googlenet", 8, 0),
    ],
)  # fmt: skip
def test_networks_of_torchvision(name: str, widths: int, blocks: int) -> None:
    torch.manual_seed(0)
    module = torchvision.models.get_model(name, weights=None, num_classes=10).eval()
    elastic, space = around(module)
    assert len(elastic.widths) == widths
    assert sum(len(depth.blocks) for depth in elastic.depths) == blocks
    rng = np.random.default_rng(0)
    network = elastic.apply(Network(module), space.candidate(space.sample(rng)).architecture)
    assert network.params < Network(module).params
