"""Low-rank factors: equal to the layer at full rank, smaller below it, and known again from disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from slimsearch import compression
from slimsearch.compression import Network, Quantization
from slimsearch.compression.low_rank import LowRank
from slimsearch.compression.prune import Prune
from slimsearch.compression.quantization.plan import LearnedRange
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import NetworkTraining, TrainingSettings
from slimsearch.evaluators.datasets import Dataset
from tests.compression.no_training import NoTraining


class Wide(nn.Module):
    """Every kind of layer: strided, dilated, reflected, grouped, 1x1 with a stride, one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 5, padding=2)
        self.reflected = nn.Conv2d(24, 32, 3, stride=2, padding=1, padding_mode="reflect")
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.point = nn.Conv2d(32, 40, 1, stride=2, bias=False)
        self.dilated = nn.Conv2d(40, 40, (3, 1), dilation=(2, 1), padding=(2, 0), bias=False)
        self.norm = nn.BatchNorm2d(40)
        self.twice = nn.Linear(40, 40)
        self.head = nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.reflected(self.stem(x).relu()).relu())
        x = self.norm(self.dilated(self.point(x))).relu().mean(dim=(2, 3))
        return self.head(self.twice(self.twice(x).relu()).relu())


def _thin(module: nn.Module, rank: int) -> nn.Module:
    """`module` with weights that have `rank` in every unfolding of channels."""
    with torch.no_grad():
        for weight in (p for p in module.parameters() if p.ndim > 1):
            (one, _), (other, _) = (torch.linalg.qr(torch.randn(n, min(rank, n))) for n in weight.shape[:2])
            projected = torch.einsum("oi...,or,is->rs...", weight, one, other)
            weight.copy_(torch.einsum("rs...,or,is->oi...", projected, one, other))
            weight.mul_((2 / weight[0].numel()) ** 0.5 / weight.std())  # so that answers depend on the image
    return module


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    module = Wide()
    module(torch.randn(16, 3, 12, 12))
    return Network(module.eval())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(30, 20),
        nn.Linear(20, 30, bias=False),
        nn.Conv2d(6, 9, 1, stride=2, padding=1),
        nn.Conv2d(6, 9, 3, stride=2, padding=1),
        nn.Conv2d(1, 9, (3, 5), dilation=2, padding="same", bias=False),
        nn.Conv2d(9, 6, 3, padding=1, padding_mode="circular"),
    ],
)
def test_factors_of_all_the_energy_answer_as_the_layer(layer: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    is_linear = isinstance(layer, nn.Linear)
    shape = (layer.in_features,) if is_linear else (layer.in_channels, 11, 11)
    width = layer.out_features if is_linear else layer.out_channels
    module = nn.Sequential(_thin(layer, 2), nn.Linear(width if is_linear else 11, 10))
    if not is_linear:
        module = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    network, training = Network(module.eval()), NoTraining(*shape)
    full = LowRank(energy=1.0).apply(network, training)
    assert full.structure["replaced"] == {"0": "factored"}
    assert len(full.module[0]) == (2 if is_linear or layer.kernel_size == (1, 1) else 3)
    images = training.calibration
    assert torch.allclose(full.module(images), module(images), atol=1e-5)
    less = LowRank(energy=0.3).apply(network, training)
    assert less.params < full.params < network.params
    assert not torch.allclose(less.module(images), module(images), atol=1e-4), "the ranks are not used"
    full.save(tmp_path)
    assert torch.equal(Network.load(module, tmp_path).module(images), full.module(images))


def test_what_has_a_low_rank_is_smaller_and_answers_as_before(network: Network) -> None:
    thin = Network(_thin(network.module, 4))
    images = torch.randn(5, 3, 12, 12)
    result = LowRank(energy=1.0, epochs=0).apply(thin, NoTraining(3, 12, 12))
    assert set(result.structure["replaced"]) == {"stem", "reflected", "point", "dilated", "twice"}
    assert result.params < 0.7 * thin.params
    with torch.no_grad():
        assert torch.allclose(result.module(images), thin.module(images), atol=1e-4)
        halved = LowRank(energy=0.5, epochs=0).apply(thin, NoTraining(3, 12, 12))
        assert not torch.allclose(halved.module(images), thin.module(images), atol=1e-2)


def test_less_energy_is_fewer_parameters_and_a_larger_error(network: Network) -> None:
    images, sizes, errors = torch.randn(5, 3, 12, 12), [], []
    for energy in (0.3, 0.6, 0.9):
        result = LowRank(energy=energy, epochs=0).apply(network, NoTraining(3, 12, 12))
        sizes.append(result.params)
        errors.append(float((result.module(images) - network.module(images)).detach().norm()))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert sizes[0] < 0.5 * network.params


@pytest.mark.parametrize("share", [0.45, 0.6, 0.9])
def test_a_target_of_parameters_is_met_from_below(share: float, network: Network) -> None:
    target = int(share * network.params)
    result = LowRank(params=target, epochs=0).apply(network, NoTraining(3, 12, 12))
    assert target * 0.95 < result.params <= target


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"params": 10}, "cannot reach 10 parameters: the smallest ranks leave"),
        ({"params": 10**9}, "no more than 1000000000 parameters already"),
        ({"energy": 1.0}, "no layer gets smaller by low-rank factors at energy 1.0"),
    ],
)
def test_what_cannot_be_reached_says_so(options: dict[str, float], said: str, network: Network) -> None:
    with pytest.raises(SlimsearchError, match=said):
        LowRank(**options, epochs=0).apply(network, NoTraining(3, 12, 12))


@pytest.mark.parametrize(
    "options",
    [{"energy": 0}, {"energy": 1.1}, {"params": 0}, {"epochs": -1}, {"round_to": 0}, {"learning_rate": 0},
     {"energy": 0.5, "params": 100}],
)  # fmt: skip
def test_wrong_options(options: dict[str, float]) -> None:
    with pytest.raises(SlimsearchError, match=next(iter(options))):
        LowRank(**options)


def test_round_ranks(network: Network) -> None:
    result = LowRank(energy=0.5, epochs=0, round_to=4).apply(network, NoTraining(3, 12, 12))
    ranks = [part.out_channels for name in ("reflected", "dilated") for part in result.module.get_submodule(name)[:2]]
    assert all(rank % 4 == 0 for rank in ranks)


def test_shared_weights_and_subclasses_stay_whole() -> None:
    class Own(nn.Linear):
        """Might do anything with its weight."""

    module = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), Own(64, 64), nn.Linear(64, 64), nn.ReLU()
    )
    module.append(nn.Linear(64, 10))
    module[2].weight = module[1].weight
    result = LowRank(energy=0.5, epochs=0).apply(Network(module.eval()), NoTraining(1, 8, 8))
    assert list(result.structure["replaced"]) == ["4"]


def test_a_module_that_reaches_into_its_layers_says_so() -> None:
    class Reaches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.out = nn.Linear(64, 64), nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.fc(x.reshape(-1, self.fc.in_features)))

    with pytest.raises(SlimsearchError, match="does not run with factored layers: AttributeError"):
        LowRank(energy=0.5).apply(Network(Reaches().eval()), NoTraining(1, 8, 8))


def test_learned_ranges_of_factored_layers_are_dropped(network: Network) -> None:
    known = LearnedRange((0.1,), 4, 0.1, 0)
    planned = Network(network.module, {}, Quantization(learned={"stem": known, "head": known}))
    result = LowRank(energy=0.5, epochs=0).apply(planned, NoTraining(3, 12, 12))
    assert result.quantization == Quantization(learned={"head": known})


def _before(network: Network) -> Network:
    pruned = Prune(sparsity=0.25, epochs=1).apply(network, NoTraining(3, 12, 12))
    return LowRank(energy=0.6, epochs=0).apply(pruned, NoTraining(3, 12, 12))


def _after(network: Network) -> Network:
    thin = LowRank(energy=0.6, epochs=0).apply(network, NoTraining(3, 12, 12))
    return Prune(sparsity=0.25, epochs=1).apply(thin, NoTraining(3, 12, 12))


@pytest.mark.parametrize("both", [_before, _after])
def test_together_with_pruning(both: Callable[[Network], Network], network: Network, tmp_path: Path) -> None:
    alone = LowRank(energy=0.6, epochs=0).apply(network, NoTraining(3, 12, 12))
    result = both(network)
    assert result.params < alone.params
    result.save(tmp_path)
    loaded = Network.load(Wide(), tmp_path)
    images = torch.randn(5, 3, 12, 12)
    assert torch.equal(loaded.module(images), result.module.eval()(images))
    assert compression._network.widths(loaded.module) == compression._network.widths(result.module)


@pytest.mark.parametrize("epochs", [0, 1])
def test_with_a_real_training(epochs: int, digits: Dataset) -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    training = NetworkTraining(digits, TrainingSettings(), seed=0)
    result = LowRank(energy=0.5, epochs=epochs).apply(Network(module.eval()), training)
    assert result.params < Network(module).params
    started = LowRank(energy=0.5).begin(Network(module), training).network.module.state_dict()
    same = all(torch.equal(value, started[name]) for name, value in result.module.state_dict().items())
    assert same == (epochs == 0)
