"""What to cut, when, and what becomes of the rest."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.compression.prune import Prune
from slimsearch.compression.pruning.channels import Channels, silence
from slimsearch.compression.pruning.importances.l1 import L1
from slimsearch.compression.pruning.importances.movement import Movement
from slimsearch.compression.pruning.importances.taylor import Taylor
from slimsearch.compression.pruning.schedules.agp import Agp
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import NetworkTraining, TrainingSettings
from slimsearch.evaluators.datasets import Dataset
from slimsearch.names import built_in_names, load_class
from slimsearch.search_spaces import ModelSpace
from tests.conftest import VARIOUS

ARCHITECTURE = {"width": 32}


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace.load(VARIOUS, (1, 8, 8), 10)


@pytest.fixture(scope="module")
def training(digits: Dataset, space: ModelSpace) -> NetworkTraining:
    return NetworkTraining(digits, TrainingSettings(), seed=0, epochs=1, initial=lambda: space.build(ARCHITECTURE, 5))


@pytest.fixture(scope="module")
def trained(space: ModelSpace, training: NetworkTraining) -> Network:
    return training.fit(Network(space.build(ARCHITECTURE, 5)), epochs=4)


@pytest.mark.parametrize("name", built_in_names("slimsearch.compression.pruning.schedules"))
def test_schedules_grow_and_end_with_all_of_it(name: str) -> None:
    schedule = load_class("schedule", name, "slimsearch.compression.pruning.schedules")()
    shares = [schedule.share(progress / 10) for progress in range(11)]
    assert shares == sorted(shares)
    assert shares[0] >= 0
    assert shares[-1] == 1


@given(st.floats(0, 1))
def test_agp_is_the_cubic_of_zhu_and_gupta(progress: float) -> None:
    final = 0.8
    assert final * Agp().share(progress) == pytest.approx(final + (0 - final) * (1 - progress) ** 3)


def test_silenced_channels_can_be_cut_without_a_difference(trained: Network, training: NetworkTraining) -> None:
    module = trained.copy_module()
    channels = Channels(module, training.calibration, round_to=1)
    cuts = channels.choose(L1(), L1().scores(weights(module)), [0.5], together=False)
    silence(module, cuts)()
    with torch.no_grad():
        silenced = module(training.calibration)
        intact = trained.module(training.calibration)
    channels.cut(module, cuts)
    with torch.no_grad():
        assert torch.allclose(module(training.calibration), silenced, atol=1e-5)
    assert not torch.allclose(intact, silenced, atol=1e-2)


def test_a_group_loses_the_same_channels_everywhere(trained: Network, training: NetworkTraining) -> None:
    module = trained.copy_module()
    channels = Channels(module, training.calibration, round_to=1)
    cuts = channels.choose(L1(), L1().scores(weights(module)), [0.25], together=False)
    stream = next(one for one in cuts if "stem" in one.silenced)
    assert stream.silenced["stem"] == stream.silenced["back"] == stream.silenced["depthwise"]
    assert len(stream.silenced["stem"]) == 4


@pytest.mark.parametrize("importance", [Taylor, Movement])
def test_what_has_no_gradient_or_no_weight_is_worth_nothing(importance: type) -> None:
    made = importance()
    values = {"w": torch.tensor([[0.0, 2.0, 2.0, -2.0]])}
    made.observe(values, {"w": torch.tensor([[3.0, 0.0, -1.0, 1.0]])})
    scores = made.scores(values)["w"][0].tolist()
    assert scores[0] == scores[1] == min(scores)
    assert scores[2] == scores[3] > scores[0], "both move away from zero"


def test_movement_is_worth_less_towards_zero_than_away() -> None:
    made, values = Movement(), {"w": torch.tensor([[1.0, 1.0]])}
    made.observe(values, {"w": torch.tensor([[1.0, -1.0]])})  # a step against the gradient: towards zero, and away
    towards, away = made.scores(values)["w"][0].tolist()
    assert towards < away


@pytest.mark.parametrize(
    ("importance", "schedule"),
    [("l1", "at_once"), ("l1", "agp"), ("taylor", "at_once"), ("taylor", "agp"), ("movement", "agp")],
)  # fmt: skip
@pytest.mark.parametrize("scope", ["layer", "network"])
def test_level_leaves_the_share_that_was_asked_for(
    importance: str, schedule: str, scope: str, trained: Network, training: NetworkTraining
) -> None:
    recipe = {"level": {"sparsity": 0.7, "importance": importance, "schedule": schedule, "scope": scope}}
    result = compression.Recipe.parse(recipe).apply(trained, training).module
    tensors = [p for p in result.parameters() if p.ndim > 1]
    zeros = [float((p == 0).float().mean()) for p in tensors]
    total = sum(int((p == 0).sum()) for p in tensors) / sum(p.numel() for p in tensors)
    assert total == pytest.approx(0.7, abs=0.01)
    if scope == "layer":
        assert max(abs(share - 0.7) for share in zeros) < 0.02


def test_rewound_weights_are_the_initial_ones_of_the_channels_that_are_kept(
    space: ModelSpace, trained: Network, digits: Dataset
) -> None:
    class Untrained(NetworkTraining):
        def fit(self, network: Network, **settings: object) -> Network:  # type: ignore[override]
            return network

    training = Untrained(digits, TrainingSettings(), 0, initial=lambda: space.build(ARCHITECTURE, 5))
    initial = space.build(ARCHITECTURE, 5)
    rewound = compression.Recipe.parse("prune:after=rewind").apply(trained, training).module
    tuned = compression.Recipe.parse("prune").apply(trained, training).module
    scratch = compression.Recipe.parse("prune:after=scratch").apply(trained, training).module
    assert rewound.wide.weight.shape == tuned.wide.weight.shape == scratch.wide.weight.shape
    kept = {round(float(value), 6) for value in initial.hidden.bias.detach()}
    assert {round(float(value), 6) for value in rewound.hidden.bias.detach()} < kept
    assert not {round(float(value), 6) for value in tuned.hidden.bias.detach()} & kept
    assert not {round(float(value), 6) for value in scratch.hidden.bias.detach()} & kept


@pytest.mark.parametrize("target", ["params=4000", "macs=60000", "params=3000:scope=network:importance=taylor"])
@pytest.mark.parametrize("schedule", ["at_once", "linear"])
def test_targets_are_met_and_not_by_far(
    target: str, schedule: str, trained: Network, training: NetworkTraining
) -> None:
    recipe = compression.Recipe.parse(f"prune:{target}:round_to=1:schedule={schedule}")
    pruned = recipe.apply(trained, training)
    name, bound = target.partition(":")[0].split("=")
    reached = pruned.params if name == "params" else pruned.macs(training.calibration[:1])
    assert 0.7 * float(bound) < reached <= float(bound)


def test_latency_is_measured_for_each_ratio(digits: Dataset, trained: Network) -> None:
    measured: list[int] = []

    def latency(network: Network) -> float:
        measured.append(network.params)
        return network.params / 1000

    training = NetworkTraining(digits, TrainingSettings(), 0, epochs=1, latency=latency)
    pruned = compression.Recipe.parse("prune:latency_ms=4.0:round_to=1").apply(trained, training)
    assert pruned.params <= 4000
    assert len(measured) > 4


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("prune:params=5", "pruning cannot reach params 5: the narrowest network has"),
        ("prune:params=1000000", "no more than 1e.06 params as it is"),
        ("prune:importance=slim:params=5", "cannot reach params 5"),
        ("prune:latency_ms=1", "latency cannot be measured"),
        ("prune,prune:importance=l1", "stands twice"),
        ("low_rank,prune:after=rewind", "only a network that nothing was cut from can go back"),
    ],
)
def test_what_cannot_be_done_says_so(recipe: str, said: str, trained: Network, training: NetworkTraining) -> None:
    with pytest.raises(SlimsearchError, match=said):
        compression.Recipe.parse(recipe.replace("low_rank,", "low_rank:energy=0.5,")).apply(trained, training)


def test_grouped_convolutions_and_norms_lose_whole_positions() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.grouped = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 32, 3, groups=4)
            self.norm, self.head = nn.GroupNorm(4, 32), nn.Linear(32, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.grouped(self.stem(x).relu())).mean(dim=(2, 3)))

    module, images = Grouped().eval(), torch.randn(2, 1, 12, 12)
    channels = Channels(module, images, round_to=1)
    channels.cut(module, channels.choose(L1(), L1().scores(weights(module)), [0.4], together=False))
    assert module.grouped.groups == 4
    assert module.stem.out_channels % 4 == module.grouped.out_channels % 4 == 0
    assert module.stem.out_channels < 16
    assert module.grouped.out_channels < 32
    assert module(images).shape == (2, 10)


@pytest.mark.parametrize("importance", ["l1", "fpgm"])
def test_grouped_convolutions_are_ranked_by_every_importance_of_weights(importance: str) -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.grouped, self.head = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 32, 3, groups=4), nn.Linear(32, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.grouped(self.stem(x).relu()).mean(dim=(2, 3)))

    class Untrained:
        seed, epochs, calibration = 0, 1, torch.randn(2, 1, 12, 12)

        def fit(self, network: Network, **settings: object) -> Network:
            return network

    stage = Prune(sparsity=0.5, importance=importance, round_to=1)
    pruned = stage.apply(Network(Grouped().eval()), Untrained()).module
    assert (pruned.stem.out_channels, pruned.grouped.out_channels) == (8, 16)


@pytest.mark.parametrize(
    "options",
    [
        {"sparsity": 1.5}, {"sparsity": 0.5, "params": 10}, {"after": "never"}, {"learning_rate": -1.0}, {"epochs": 0},
        {"ramp": 0.0}, {"scope": "all"}, {"importance": "most"}, {"early": 1.0}, {"dropout": 2.0},
    ],
)  # fmt: skip
def test_a_wrong_option_is_an_error_of_slimsearch(options: dict[str, object]) -> None:
    with pytest.raises(SlimsearchError):
        Prune(**options)
