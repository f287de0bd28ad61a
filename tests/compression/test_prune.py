"""Structured pruning: what is removed, and what must not change by it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from slimsearch.compression import Network
from slimsearch.compression.prune import Prune
from slimsearch.errors import SlimsearchError
from tests.compression.no_training import NoTraining


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.norm, self.fc = nn.BatchNorm2d(16), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        return self.fc((x + self.b(self.norm(self.a(x)).relu())).mean(dim=(2, 3)))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.dw = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.pw, self.fc = nn.Conv2d(8, 16, 1), nn.Linear(16 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(torch.max_pool2d(self.pw(self.dw(self.stem(x).relu())).relu(), 2), 1))


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.fc = nn.Conv2d(1, 6, 3), nn.Conv2d(1, 4, 3), nn.Conv2d(10, 8, 1), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.c(torch.cat([self.a(x), self.b(x)], 1)).relu().mean(dim=(2, 3)))


@pytest.mark.parametrize("make", [Residual, Depthwise, Concatenated])
def test_channels_are_really_gone(make: Callable[[], nn.Module]) -> None:
    network = Network(make().eval())
    pruned = Prune(sparsity=0.5, epochs=1).apply(network, NoTraining(1, 12, 12))
    assert pruned.params < 0.55 * network.params
    assert pruned.module(torch.randn(3, 1, 12, 12)).shape == (3, 10)
    assert pruned.module.fc.out_features == 10


def test_channels_of_zeros_can_go_without_a_difference() -> None:
    torch.manual_seed(0)
    module = Depthwise().eval()
    with torch.no_grad():
        for channel in (1, 4):  # what leaves these channels is zero, wherever it is used
            module.stem.weight[channel], module.stem.bias[channel] = 0, 0
            module.dw.weight[channel], module.dw.bias[channel] = 0, 0
            module.pw.weight[:, channel] = 0
        for channel in (0, 2, 7, 9):
            module.pw.weight[channel], module.pw.bias[channel] = 0, 0
            module.fc.weight[:, channel * 16 : (channel + 1) * 16] = 0
    images = torch.randn(5, 1, 12, 12)
    pruned = Prune(sparsity=0.25, epochs=1).apply(Network(module), NoTraining(1, 12, 12))
    assert (pruned.module.stem.out_channels, pruned.module.pw.out_channels) == (6, 12)
    assert torch.allclose(pruned.module.eval()(images), module(images), atol=1e-6)


@pytest.mark.parametrize(("sparsity", "widths"), [(0.3, (48, 88)), (0.5, (32, 64)), (0.9, (8, 16)), (0.1, (56, 112))])
def test_wide_layers_get_round_widths(sparsity: float, widths: tuple[int, int]) -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.Conv2d(12, 64, 1), nn.Flatten(), nn.Linear(64 * 36, 128), nn.Linear(128, 10)
    )
    pruned = Prune(sparsity=sparsity, epochs=1).apply(Network(module.eval()), NoTraining(1, 8, 8)).module
    assert (pruned[1].out_channels, pruned[3].out_features) == widths
    assert pruned[0].out_channels == math.ceil(12 * (1 - sparsity) - 1e-6), "a narrow layer is not given a round width"


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_the_share_of_dropout_that_is_kept(kept: float) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Dropout(0.5), nn.Linear(40, 10))
    pruned = Prune(sparsity=0.5, epochs=1, dropout=kept).apply(Network(module.eval()), NoTraining(1, 8, 8))
    assert pruned.module[3].p == 0.5 * kept
    assert pruned.structure["dropout"] == {"3": 0.5 * kept}
    assert module[3].p == 0.5


def test_a_network_without_layers_to_prune_says_so() -> None:
    with pytest.raises(SlimsearchError, match="neither a Linear nor a Conv2d"):
        Prune().apply(Network(nn.Sequential(nn.Flatten(), nn.Softmax(dim=1))), NoTraining(1, 4, 4))


def test_a_network_with_one_layer_has_nothing_to_spare() -> None:
    with pytest.raises(SlimsearchError, match="no layer before '1' has two channels"):
        Prune().apply(Network(nn.Sequential(nn.Flatten(), nn.Linear(16, 10))), NoTraining(1, 4, 4))


def test_damaged_weights_say_so(tmp_path: Path) -> None:
    Network(Residual()).save(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"not weights")
    with pytest.raises(SlimsearchError, match="cannot load the network"):
        Network.load(Residual(), tmp_path)


class Chain(nn.Module):
    """Six layers that can be cut, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        widths = [1, 8, 8, 8, 8, 8, 8]
        self.body = nn.Sequential(*(nn.Conv2d(a, b, 1) for a, b in itertools.pairwise(widths)))
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({"early": 0.5}, [4, 4, 8, 8, 8, 8]),
        ({"late": 0.75}, [8, 8, 8, 8, 2, 2]),
        ({"early": 0.25, "middle": 0.5, "late": 0}, [6, 6, 4, 4, 8, 8]),
        ({"sparsity": 0.5}, [4, 4, 4, 4, 4, 4]),
    ],
)
@pytest.mark.parametrize("schedule", ["at_once", "agp"])
def test_each_third_of_the_layers_has_its_share(options: dict[str, float], widths: list[int], schedule: str) -> None:
    made = Prune(**options, schedule=schedule, round_to=1).begin(Network(Chain()), NoTraining(1, 4, 4))
    network = made.network
    for after_step in made.after_step:
        for step in range(20):
            after_step(network.module, step, 20)
    if made.finish is not None:
        network = made.finish(network)
    assert [layer.out_channels for layer in network.module.body] == widths


class ShuffledGroups(nn.Module):
    """Channels are reordered between two grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shuffle = nn.Conv2d(1, 32, 3, padding=1), nn.ChannelShuffle(4)
        self.a, self.b = nn.Conv2d(32, 32, 3, groups=4), nn.Conv2d(32, 32, 3, groups=4)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.b(self.shuffle(self.a(self.stem(x).relu()).relu())).relu().mean((2, 3)))


class Ghost(nn.Module):
    """Half of the channels are made of the others by a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 16, 1)
        self.b, self.fc = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(self.stem(x).relu()).relu()
        return self.fc(torch.cat([y, self.b(y).relu()], 1).mean((2, 3)))


class GatedChunks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3)
        self.b, self.fc = nn.Conv2d(32, 32, 3), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, gate = self.a(self.stem(x).relu()).chunk(2, 1)
        return self.fc(self.b(y * gate.sigmoid()).relu().mean((2, 3)))


class Scales(nn.Module):
    """Parts of the channels go through convolutions that read each other, as in Res2Net."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 32, 1)
        self.parts = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.b, self.fc = nn.Conv2d(32, 32, 1), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *others = self.a(self.stem(x).relu()).relu().chunk(4, 1)
        found, before = [first], torch.zeros_like(first)
        for layer, part in zip(self.parts, others, strict=True):
            before = layer(part + before).relu()
            found.append(before)
        return self.fc(self.b(torch.cat(found, 1)).relu().mean((2, 3)))


@pytest.mark.parametrize(
    ("make", "widths", "whole"),
    [
        (ShuffledGroups, {"stem": 16, "a": 32, "b": 16}, {"a"}),
        (Ghost, {"stem": 16, "a": 8, "b": 8}, set()),
        (GatedChunks, {"stem": 16, "a": 32, "b": 16}, set()),
        (Scales, {"stem": 16, "a": 32, "parts.0": 8, "parts.1": 8, "parts.2": 8, "b": 16}, {"a", "parts.0", "parts.2"}),
    ],
)
def test_the_share_that_is_reached_is_told(
    make: Callable[[], nn.Module], widths: dict[str, int], whole: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    module = make().eval()
    with caplog.at_level("INFO", "slimsearch"):
        pruned = Prune(sparsity=0.5, round_to=1).apply(Network(module), NoTraining(1, 12, 12))
    convolutions = {n: m for n, m in module.named_modules() if isinstance(m, nn.Conv2d)}
    assert {name: pruned.module.get_submodule(name).out_channels for name in convolutions} == widths
    share = 1 - sum(widths.values()) / sum(layer.out_channels for layer in convolutions.values())
    assert pruned.structure["pruned"] == {"share": round(share, 4), "asked": 0.5}
    assert f"{share:.0%} of all channels are removed, 50% asked" in caplog.text
    assert all(f"'{name}'" in caplog.text for name in whole)
    assert ("keep all channels" in caplog.text) == bool(whole)
