"""Supernets: shared parameters, training, inherited weights, and evaluation with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import nni
import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import Cell, LayerChoice, MutableConv2d, MutableLinear
from nni.nas.nn.pytorch import ModelSpace as NniModelSpace
from torch import nn

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Meter, NetworkEvaluator, StoppedEarly, Task, TrainingSettings, WeightSharingEvaluator
from slimsearch.evaluators.datasets import Dataset, Split, load_dataset
from slimsearch.evaluators.supernet import training
from slimsearch.evaluators.supernet.supernet import SharedWeights, Supernet, calibration_images, recalibrate
from slimsearch.evaluators.supernet.training import SAMPLINGS, PathSampler, train_supernet
from slimsearch.evaluators.tasks import Classification
from slimsearch.evaluators.training.network_training import OnEpoch, validate
from slimsearch.search_spaces import Candidate, ModelSpace, NniSpace
from tests.conftest import SPACES, TINY, VARIOUS

SETTINGS = TrainingSettings()
NESTED = f"{SPACES}:Nested"


class TwoParts(NniModelSpace):  # type: ignore[misc]
    """A convolution and a linear layer that see two tensors of chosen width, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [4, 8])
        self.one, self.other = MutableConv2d(1, width, 3), MutableConv2d(1, width, 3)
        self.act, self.mix = nn.ReLU(), MutableConv2d(width * 2, 6, 1)
        self.grouped = MutableConv2d(width, width * 2, 1, groups=2)
        self.fc = MutableLinear(width * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, other = self.one(x), self.other(x)
        both = self.act(torch.cat([one, other], 1))
        features = torch.cat([self.grouped(one), both], 1).mean((2, 3))
        return self.fc(features) + self.mix(both).mean()


class Celled(NniModelSpace):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.cell = Cell([nn.Conv2d(4, 4, 1), nn.Identity()], num_nodes=2, label="cell")
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.cell([self.stem(x)]).mean((2, 3)))


class Dilated(NniModelSpace):  # type: ignore[misc]
    """Branches that differ in nothing that shapes tell."""

    def __init__(self) -> None:
        super().__init__()
        branches = {"near": nn.Conv2d(1, 4, 3, padding=1), "far": nn.Conv2d(1, 4, 3, padding=1)}
        self.conv = LayerChoice(branches, label="conv")
        self.fc = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


def keys(space: ModelSpace, architecture: Mapping[str, Any]) -> dict[str, str]:
    return {name: slot.key for name, slot in SharedWeights(space).structure(architecture).slots.items()}


def few(data: Dataset, count: int) -> Dataset:
    return replace(
        data,
        train=Split(data.train.inputs[:count], data.train.targets[:count]),
        validation=Split(data.validation.inputs[:100], data.validation.targets[:100]),
    )


@pytest.fixture(scope="module")
def tiny() -> ModelSpace:
    return ModelSpace.load(TINY, (1, 8, 8), 10)


@pytest.fixture(scope="module")
def various() -> ModelSpace:
    return ModelSpace.load(VARIOUS, (1, 8, 8), 10)


@pytest.fixture(scope="module")
def lenet() -> SharedWeights:
    """Structures are kept: the tests that look at many networks build each once."""
    return SharedWeights(ModelSpace.load("lenet", (1, 28, 28), 10))


@pytest.fixture(scope="module")
def trained(various: ModelSpace, digits: Dataset) -> Supernet:
    return train_supernet(various, few(digits, 512), SETTINGS, epochs=1, seed=0)


@pytest.mark.parametrize("name", ["Tiny", "Nested", "Various"])
def test_parameters_are_slices_of_the_shared_tensors(name: str, rng: np.random.Generator) -> None:
    space = ModelSpace.load(f"{SPACES}:{name}", (1, 8, 8), 10)
    weights = SharedWeights(space)
    architectures = [space.sample(rng) for _ in range(10)]
    for architecture in architectures:
        weights.extend(architecture)
    images = torch.randn(4, 1, 8, 8)
    for architecture in architectures:
        module = Supernet(weights).subnet(architecture, images)
        slots = weights.structure(architecture).slots
        assert slots.keys() == dict(module.named_parameters()).keys()
        for parameter, view in zip(module.parameters(), weights.views(architecture).values(), strict=True):
            assert torch.equal(parameter, view)
        for name_, slot in slots.items():
            whole = weights.tensors[slot.key]
            assert weights.views(architecture)[name_].data_ptr() == whole.data_ptr()
            assert weights.views(architecture)[name_].stride() == whole.stride()


def test_trained_values_stay_when_a_tensor_grows(tiny: ModelSpace) -> None:
    weights = SharedWeights(tiny)
    small, large = {"act": 0, "width": 8}, {"act": 0, "width": 24}
    weights.extend(small)
    before = {name: view.clone() for name, view in weights.views(small).items()}
    with pytest.raises(SlimsearchError, match=r"no weights for 'conv.weight@3x3' of \(24, 1, 3, 3\)"):
        weights.views(large)
    assert sorted(weights.extend(large)) == ["conv.bias@3x3", "conv.weight@3x3", "fc.weight*9"]
    assert weights.extend(large) == []
    assert all(torch.equal(view, before[name]) for name, view in weights.views(small).items())
    assert all(float(view.abs().min()) > 0 for view in weights.views(large).values())


def test_branches_share_nothing() -> None:
    space = NniSpace(Dilated, (1, 8, 8), 10)
    near, far = (keys(space, {"conv": branch}) for branch in ("near", "far"))
    assert near["conv.weight"] != far["conv.weight"]
    assert near["fc.weight"] == far["fc.weight"]
    nested = ModelSpace.load(NESTED, (1, 8, 8), 10)
    rest = {"branch": 1, "depth": 1, "inputs": [0, 1]}
    one, three = (keys(nested, {**rest, "kernel": kernel}) for kernel in (0, 1))
    assert one["branch.kernel.weight"] == "branch.1.kernel.0.weight@1x1"
    assert three["branch.kernel.weight"] == "branch.1.kernel.1.weight@3x3"


def test_kernels_and_positions_have_separate_weights() -> None:
    space = ModelSpace.load("lenet", (1, 28, 28), 10)
    rest = {"activation": "relu", "conv1": 6, "conv2": 16, "fc1": 120, "fc2": 84}
    found = {(one, two): keys(space, {**rest, "kernel1": one, "kernel2": two}) for one in (3, 5) for two in (3, 5)}
    assert found[3, 3]["conv1.weight"] == found[3, 5]["conv1.weight"] != found[5, 3]["conv1.weight"]
    # 5x5 positions of each channel, or 4x4.
    assert found[3, 3]["fc1.weight"] == found[5, 3]["fc1.weight"] != found[3, 5]["fc1.weight"]
    assert found[3, 5]["fc1.weight"] == found[5, 5]["fc1.weight"]
    assert len({names["fc2.weight"] for names in found.values()}) == 1


def test_compositions_of_a_concatenation_have_separate_weights() -> None:
    space = NniSpace(TwoParts, (1, 8, 8), 10)
    narrow, wide = (keys(space, {"width": width}) for width in (4, 8))
    assert narrow["mix.weight"] == "mix.weight@1x1+(4,4)"
    assert wide["mix.weight"] == "mix.weight@1x1+(8,8)"
    assert narrow["fc.weight"] == "fc.weight+(8,8+(4,4))"
    assert narrow["grouped.weight"] != wide["grouped.weight"]
    assert narrow["one.weight"] == wide["one.weight"]


def test_every_edge_of_a_cell_has_weights_of_its_own() -> None:
    space = NniSpace(Celled, (1, 8, 8), 10)
    architecture = {"cell/op_1_0": "0", "cell/op_2_0": "0", "cell/input_2_0": [0]}
    point = {choice.label: architecture.get(choice.label, choice.values[0]) for choice in space.choices}
    one, other = (keys(space, {**point, "cell/input_2_0": edge}) for edge in ([0], [1]))
    assert one["cell.ops.0.0.weight"] == other["cell.ops.0.0.weight"]
    assert one["cell.ops.1.0.weight"] != other["cell.ops.1.0.weight"]


def test_a_flattened_channel_keeps_its_weights(tiny: ModelSpace) -> None:
    """Without channel 5's block, a network does as if its channel 5 were silent, whatever its width."""
    weights = SharedWeights(tiny)
    weights.extend({"act": 0, "width": 24})
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        weights.tensors["fc.weight*9"].view(10, 24, 9)[:, 5] = 0
        for width in (8, 16, 24):
            architecture = {"act": 0, "width": width}
            module = Supernet(weights).subnet(architecture, images)
            whole = module(images)
            module.conv.weight[5], module.conv.bias[5] = 0, 0
            assert torch.equal(module(images), whole)
            module.conv.weight[4] = 0
            assert not torch.equal(module(images), whole)


def test_gradients_reach_what_a_network_uses_and_nothing_else() -> None:
    space = ModelSpace.load("lenet", (1, 28, 28), 10)
    weights = SharedWeights(space)
    widest = {"activation": "tanh", "conv1": 12, "conv2": 32, "fc1": 120, "fc2": 84, "kernel1": 3, "kernel2": 3}
    narrow = {**widest, "conv1": 4, "conv2": 8, "fc1": 32, "fc2": 32}
    for architecture in (widest, {**widest, "kernel1": 5, "kernel2": 5}):
        weights.extend(architecture)
    weights(narrow, torch.randn(2, 1, 28, 28)).square().sum().backward()
    used = {slot.key: slot.shape for slot in weights.structure(narrow).slots.values()}
    for key, tensor in weights.tensors.items():
        if key not in used:
            assert tensor.grad is None
            continue
        assert tensor.grad is not None
        inside = tensor.grad[tuple(map(slice, used[key]))]
        assert float(inside.abs().sum()) > 0
        assert float(tensor.grad.abs().sum()) == pytest.approx(float(inside.abs().sum()))


def test_the_shared_run_and_the_copied_network_agree(rng: np.random.Generator) -> None:
    space = ModelSpace.load(NESTED, (1, 8, 8), 10)
    weights = SharedWeights(space)
    images = torch.randn(4, 1, 8, 8)
    for _ in range(10):
        architecture = space.sample(rng)
        weights.extend(architecture)
        with torch.no_grad():
            expected = weights(architecture, images, training=False)
            assert torch.equal(Supernet(weights).subnet(architecture, images)(images), expected)


def test_statistics_are_those_of_the_images(various: ModelSpace, trained: Supernet, digits: Dataset) -> None:
    images = digits.normalise(digits.train.inputs[:256])
    one, again = (trained.subnet({"width": 16}, images) for _ in range(2))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(one.buffers(), again.buffers(), strict=True))
    with torch.no_grad():
        stem = one.stem(images)
    assert torch.allclose(one.norm1.running_mean, stem.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(one.norm1.running_var, stem.var((0, 2, 3)), rtol=1e-4)
    assert one.norm1.momentum == various.build({"width": 16}).norm1.momentum
    assert not any(module.training for module in one.modules())
    before = one.norm2.running_mean.clone()
    recalibrate(one, images + 1)
    assert not torch.allclose(one.norm2.running_mean, before)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_sampling_trains(sampling: str, tiny: ModelSpace, digits: Dataset) -> None:
    curve: list[Mapping[str, float]] = []
    supernet = train_supernet(
        tiny, digits, SETTINGS, epochs=5, seed=0, sampling=sampling,
        on_epoch=lambda epoch, scores: curve.append(scores) or True,  # type: ignore[func-returns-value]
    )  # fmt: skip
    assert len(curve) == 5
    assert curve[-1]["train_loss"] < 0.6 * curve[0]["train_loss"]
    images = digits.normalise(digits.validation.inputs)
    for architecture in tiny.grid():
        with torch.no_grad():
            found = supernet.subnet(architecture, images)(images).argmax(1).numpy()
        assert (found == digits.validation.targets).mean() > 0.5
    assert supernet.facts["sampling"] == sampling


def test_an_unknown_sampling_is_an_error(tiny: ModelSpace, digits: Dataset) -> None:
    with pytest.raises(SlimsearchError, match="unknown sampling 'darts'; known: sandwich, fair, random"):
        train_supernet(tiny, digits, SETTINGS, epochs=1, seed=0, sampling="darts")


def test_a_loss_that_is_not_finite_is_an_error(digits: Dataset) -> None:
    space = ModelSpace.load(f"{SPACES}:Diverges", (1, 8, 8), 10)
    with pytest.raises(SlimsearchError, match="the supernet's loss is nan in epoch 1"):
        train_supernet(space, few(digits, 64), SETTINGS, epochs=1, seed=0)


def test_networks_that_need_contiguous_memory_are_trained(digits: Dataset) -> None:
    space = ModelSpace.load(f"{SPACES}:Viewed", (1, 8, 8), 10)
    losses: list[float] = []
    train_supernet(
        space, few(digits, 256), SETTINGS, epochs=2, seed=0,
        on_epoch=lambda epoch, scores: losses.append(scores["train_loss"]) or True,
    )  # fmt: skip
    assert losses[1] < losses[0]


def test_a_network_that_fails_in_training_is_named(digits: Dataset) -> None:
    space = ModelSpace.load(f"{SPACES}:SometimesFails", (1, 8, 8), 10)
    with pytest.raises(SlimsearchError, match=r"'width': 16} fails in training: RuntimeError: width 16 gave up"):
        train_supernet(space, digits, SETTINGS, epochs=1, seed=0)


def test_fair_steps_use_every_value_equally_often(lenet: SharedWeights) -> None:
    paths = PathSampler(lenet, "fair", 0)
    counts: dict[tuple[str, object], int] = {}
    for _ in range(3):  # four networks a step: choices of two and four values come out even in each, of three here
        step = paths.draw()
        assert len(step) == 4
        assert sorted(architecture["conv1"] for architecture in step) == [4, 6, 8, 12]
        for architecture in step:
            for entry in architecture.items():
                counts[entry] = counts.get(entry, 0) + 1
    for choice in lenet.space.choices:
        assert {counts[choice.label, value] for value in choice.values} == {12 // len(choice.values)}


def test_a_sandwich_has_large_and_small_slices(lenet: SharedWeights) -> None:
    paths = PathSampler(lenet, "sandwich", 0)
    steps = [paths.draw() for _ in range(20)]
    for large, small, *rest in steps:
        assert [large[label] for label in ("conv1", "conv2", "fc1", "fc2")] == [12, 32, 120, 84]
        assert [small[label] for label in ("conv1", "conv2", "fc1", "fc2")] == [4, 8, 32, 32]
        assert all(large[label] == small[label] for label in ("activation", "kernel1", "kernel2"))
        assert len(rest) == 2
    assert len({(large["activation"], large["kernel1"], large["kernel2"]) for large, *_ in steps}) > 6


def test_the_tensors_are_complete_before_training(lenet: SharedWeights, rng: np.random.Generator) -> None:
    lenet.tensors.clear()
    PathSampler(lenet, "random", 0)
    assert all(lenet.extend(lenet.space.sample(rng)) == [] for _ in range(50))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_interrupted_training_continues_exactly(
    sampling: str, various: ModelSpace, digits: Dataset, tmp_path: Path
) -> None:
    data, checkpoint = few(digits, 128), tmp_path / "supernet.pt"

    def run(on_epoch: OnEpoch | None, path: Path | None) -> Supernet:
        return train_supernet(
            various, data, SETTINGS, epochs=3, seed=3, sampling=sampling, on_epoch=on_epoch, checkpoint=path
        )

    uninterrupted = run(None, None)
    with pytest.raises(StoppedEarly):
        run(lambda epoch, scores: epoch < 2, checkpoint)
    epochs: list[int] = []
    resumed = run(lambda epoch, scores: epochs.append(epoch) or True, checkpoint)  # type: ignore[func-returns-value]
    assert epochs == [3]
    assert not checkpoint.exists()
    ours, theirs = resumed.weights.tensors, uninterrupted.weights.tensors
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


class Concatenated(NniModelSpace):  # type: ignore[misc]
    """A layer with weights of its own for each of 64 combinations of widths."""

    def __init__(self) -> None:
        super().__init__()
        widths = [nni.choice(f"width{i}", list(range(1, 9))) for i in range(2)]
        self.one, self.other = (MutableConv2d(1, width, 3) for width in widths)
        self.fc = MutableLinear(widths[0] + widths[1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.cat([self.one(x), self.other(x)], 1).mean((2, 3)))


def test_tensors_added_during_training_are_trained_and_saved_in_checkpoints(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "MAX_COVERING", 0)
    space = NniSpace(Concatenated, (1, 8, 8), 10)

    def run(on_epoch: OnEpoch | None, path: Path | None) -> Supernet:
        return train_supernet(
            space, few(digits, 256), SETTINGS, epochs=3, seed=0, sampling="random", on_epoch=on_epoch, checkpoint=path
        )

    sizes: list[int] = []
    extend = SharedWeights.extend

    def counted(weights: SharedWeights, *arguments: Any) -> list[str]:
        new = extend(weights, *arguments)
        sizes.append(len(weights.tensors))
        return new

    monkeypatch.setattr(SharedWeights, "extend", counted)
    uninterrupted = run(None, None)
    steps = 3 * 4
    assert sizes[-1] > sizes[-1 - steps], "some tensors were added during training"
    with pytest.raises(StoppedEarly):
        run(lambda epoch, scores: epoch < 2, tmp_path / "supernet.pt")
    resumed = run(None, tmp_path / "supernet.pt")
    assert resumed.weights.tensors.keys() == uninterrupted.weights.tensors.keys()
    assert all(torch.equal(resumed.weights.tensors[k], t) for k, t in uninterrupted.weights.tensors.items())


def test_saved_and_loaded_it_is_the_same(
    various: ModelSpace, tiny: ModelSpace, trained: Supernet, tmp_path: Path
) -> None:
    trained.save(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"supernet.json", "weights.safetensors"}
    loaded = Supernet.load(tmp_path, various)
    assert loaded.facts == trained.facts
    assert loaded.weights.tensors.keys() == trained.weights.tensors.keys()
    assert all(torch.equal(loaded.weights.tensors[key], tensor) for key, tensor in trained.weights.tensors.items())
    with pytest.raises(SlimsearchError, match="is of another space: its name is Various, not Tiny"):
        Supernet.load(tmp_path, tiny)
    (tmp_path / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(SlimsearchError, match="cannot load the supernet"):
        Supernet.load(tmp_path, various)


def test_a_space_with_dropout(rng: np.random.Generator) -> None:
    space = ModelSpace.load("mnist_cnn", (1, 28, 28), 10)
    data = few(load_dataset("mnist5k"), 64)
    supernet = train_supernet(space, data, SETTINGS, epochs=1, seed=0)
    images = data.normalise(data.validation.inputs)
    module = supernet.subnet({"conv2": 1, "dropout": 0.75, "feature": 64}, images)
    assert module.dropout1.p == 0.75
    assert module(images).shape == (100, 10)


def test_candidates_inherit_and_are_scored_by_their_file(
    various: ModelSpace, trained: Supernet, digits_directory: Path, tmp_path: Path
) -> None:
    trained.save(tmp_path / "supernet")
    networks = NetworkEvaluator(various, digits_directory, memory=True)
    evaluator = cloudpickle.loads(cloudpickle.dumps(WeightSharingEvaluator(networks, tmp_path / "supernet", 1)))
    assert evaluator.prepared
    epochs: list[int] = []
    found = []
    for name in ("one", "again"):
        (tmp_path / name).mkdir()
        task = Task(0, Candidate({"width": 16}), 99, 5, tmp_path / name, inherit=True)
        outcome = evaluator.evaluate(task, report=lambda epoch, metrics: epochs.append(epoch) or True)  # type: ignore[func-returns-value]
        found.append(outcome.metrics)
    assert epochs == [0, 0, 0, 0]  # for each: size and MACs, then latency
    assert found[0]["val_accuracy"] == found[1]["val_accuracy"]
    data = Dataset.load(digits_directory, Classification())
    subnet = trained.subnet({"width": 16}, calibration_images(data)).train()
    expected = validate(subnet, data, SETTINGS, Meter(), torch.contiguous_format)
    assert found[0]["val_accuracy"] == pytest.approx(expected["val_accuracy"], abs=1e-9)
    assert found[0]["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-4)
    (tmp_path / "trained").mkdir()
    task = Task(0, Candidate({"width": 16}), 1, 5, tmp_path / "trained")
    separately = evaluator.evaluate(task, report=lambda epoch, metrics: True).metrics
    assert found[0].keys() - separately.keys() == {"val_loss"}
    assert separately.keys() <= found[0].keys()
    for cost in ("params", "macs", "size_kib", "ram_kib", "flash_kib"):
        assert found[0][cost] == separately[cost]
    written = {entry.name for entry in (tmp_path / "one").iterdir()}
    assert written == {"model.onnx", "network.json", "weights.safetensors", "predictions.safetensors"}


def test_stopped_before_weights_are_inherited(various: ModelSpace, digits_directory: Path, tmp_path: Path) -> None:
    evaluator = WeightSharingEvaluator(NetworkEvaluator(various, digits_directory), tmp_path / "nothing", 1)
    assert not evaluator.prepared
    task = Task(0, Candidate({"width": 16}), 1, 0, tmp_path, inherit=True)
    assert "val_accuracy" not in evaluator.evaluate(task, report=lambda epoch, metrics: False).metrics
    with pytest.raises(SlimsearchError, match="cannot load the supernet"):
        evaluator.evaluate(task, report=lambda epoch, metrics: True)
