"""Training of image classifiers: learning, reproducibility, early stopping, checkpoints, initial weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimsearch import compression
from slimsearch.compression import AfterStep, LossTerm, Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Meter, NetworkTraining, StoppedEarly, TrainingSettings
from slimsearch.evaluators.datasets import Dataset, Split
from slimsearch.evaluators.training.augmentation import Augmentation
from slimsearch.evaluators.training.folded_norm import fold, insert
from slimsearch.evaluators.training.network_training import OnEpoch, training_batch, validate
from slimsearch.evaluators.training.reuse import copy_matching_weights
from slimsearch.search_spaces import ModelSpace
from tests.conftest import TINY, VARIOUS


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace.load(TINY, (1, 8, 8), 10)


@pytest.fixture
def network(space: ModelSpace) -> Network:
    return Network(space.build({"act": 0, "width": 16}))


def test_learns_real_digits(digits: Dataset, network: Network) -> None:
    curve: list[dict[str, float]] = []
    training = NetworkTraining(
        digits, TrainingSettings(), seed=0, on_epoch=lambda epoch, scores: curve.append(dict(scores)) or True
    )
    trained = training.fit(network, epochs=12)
    assert len(curve) == 12
    assert curve[-1]["val_accuracy"] > 0.85
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]
    with torch.no_grad():
        logits = trained.module(digits.normalise(digits.validation.inputs))
    accuracy = float((logits.argmax(dim=1).numpy() == digits.validation.targets).mean())
    assert accuracy == pytest.approx(curve[-1]["val_accuracy"], abs=1e-9)
    assert not trained.module.training


def test_same_seed_same_weights(digits: Dataset, network: Network) -> None:
    def weights(seed: int) -> torch.Tensor:
        trained = NetworkTraining(digits, TrainingSettings(), seed).fit(network, epochs=2)
        return torch.cat([p.flatten() for p in trained.module.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_callback_ends_the_training(digits: Dataset, network: Network) -> None:
    training = NetworkTraining(digits, TrainingSettings(), 0, on_epoch=lambda epoch, scores: epoch < 2)
    with pytest.raises(StoppedEarly):
        training.fit(network, epochs=5)


def test_threads_are_restored_after_the_training(digits: Dataset, network: Network) -> None:
    before, during = torch.get_num_threads(), []
    wanted = 2 if before != 2 else 3

    def look(epoch: int, scores: Mapping[str, float]) -> bool:
        during.append(torch.get_num_threads())
        return epoch < 2

    training = NetworkTraining(digits, TrainingSettings(threads=wanted), 0, on_epoch=look)
    with pytest.raises(StoppedEarly):
        training.fit(network, epochs=3)
    assert (during, torch.get_num_threads()) == ([wanted, wanted], before)


def test_a_loss_that_is_not_finite_is_an_error(digits: Dataset, network: Network) -> None:
    settings = TrainingSettings(learning_rate=1e30)
    with pytest.raises(SlimsearchError, match=r"the loss is (nan|inf) in epoch 1, at .*: lower --learning-rate$"):
        NetworkTraining(digits, settings, 0).fit(network, epochs=1)


@pytest.mark.parametrize(
    ("recipe", "rate", "said"),
    [
        ("prune:learning_rate=1.0e+30", 5e-3, "the option learning_rate of stage 'prune'"),
        ("prune+distill:learning_rate=1.0e+30", 5e-3, "the option learning_rate of stage 'distill'"),
        ("lsq_plus:learning_rate=1.0e+30", 5e-3, "the option learning_rate of stage 'lsq_plus'"),
        ("prune", 1e30, "--learning-rate, or give stage 'prune' a learning_rate of its own"),
    ],
)
def test_a_loss_of_a_stage_that_is_no_number_names_the_rate_of_the_stage(
    recipe: str, rate: float, said: str, digits: Dataset, network: Network
) -> None:
    settings = TrainingSettings(learning_rate=rate)
    training = NetworkTraining(digits, settings, 0, epochs=1, teachers={"parent": network})
    with pytest.raises(SlimsearchError) as caught:
        compression.Recipe.parse(recipe).apply(network, training)
    assert re.search(r"the loss is (nan|inf) in epoch 1, at a learning rate of up to 1e\+30: ", str(caught.value))
    assert str(caught.value).endswith(f"lower {said}")


def test_loss_terms_and_callbacks_are_used(digits: Dataset, network: Network) -> None:
    steps: list[tuple[int, int]] = []

    class Term(LossTerm):
        weight = 1.0

        def __call__(self, images: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            return logits.square().mean()  # pulls all logits to zero, against the labels' will

    class Record(AfterStep):
        def __call__(self, module: nn.Module, step: int, total: int) -> None:
            steps.append((step, total))

    trained = NetworkTraining(digits, TrainingSettings(), 0).fit(
        network, epochs=2, losses=[Term()], after_step=[Record()]
    )
    count = 2 * (len(digits.train) // 64)
    assert steps == [(step, count) for step in range(count)]
    with torch.no_grad():
        assert float(trained.module(digits.normalise(digits.validation.inputs)).abs().mean()) < 0.5


FUNCTIONS = """
import torch

def noise(batch, generator):
    return batch + 0.1 * torch.randn(batch.shape, generator=generator)

def wrong(batch, generator):
    return batch[:, :, :3]

def fails(batch, generator):
    raise KeyError("x")
"""


def test_functions_of_the_user_change_batches(digits: Dataset, network: Network, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    images = digits.train.inputs[:20]
    plain, noisy = (augmented(images, text, digits) for text in ("none", f"none+{tmp_path}/mine.py:noise"))
    assert 15 < (noisy - plain).std() < 35
    settings = TrainingSettings(augmentation=f"shift+{tmp_path}/mine.py:noise")
    first, second, other = (
        NetworkTraining(digits, settings, seed).fit(network, epochs=1).module.state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())
    for function, said in (("wrong", r"returns \(64, 1, 3"), ("fails", "KeyError"), ("missing", "has no 'missing'")):
        settings = TrainingSettings(augmentation=f"{tmp_path}/mine.py:{function}")
        with pytest.raises(SlimsearchError, match=said):
            NetworkTraining(digits, settings, 0).fit(network, epochs=1)


def test_shifts_are_for_images_and_tasks_that_allow_them(digits: Dataset) -> None:
    flat = replace(digits, train=Split(digits.train.inputs.reshape(len(digits.train), -1), digits.train.targets))
    with pytest.raises(SlimsearchError, match="augmentation 'shift' is for images"):
        Augmentation("shift", flat)
    with pytest.raises(SlimsearchError, match="has several of"):
        Augmentation("shift+auto", digits)


def test_a_data_set_smaller_than_a_batch(digits: Dataset, network: Network) -> None:
    few = replace(digits, train=Split(digits.train.inputs[:20], digits.train.targets[:20]))
    NetworkTraining(few, TrainingSettings(), 0).fit(network, epochs=1)


def augmented(images: np.ndarray, augmentation: str, data: Dataset) -> np.ndarray:
    """One training batch of all `images`, as pixels."""
    channels = images.shape[1]
    data = replace(
        data, train=Split(images, np.zeros(len(images), np.int64)), mean=(0.0,) * channels, std=(1.0,) * channels
    )
    device = torch.device("cpu")
    batch, _ = training_batch(
        data,
        np.arange(len(images)),
        Augmentation(augmentation, data),
        np.random.default_rng(0),
        device,
        torch.contiguous_format,
    )
    return (batch.numpy() * 255).round()


def test_shifts_move_each_image_on_its_own(digits: Dataset) -> None:
    images = np.zeros((50, 2, 28, 28), dtype=np.uint8)
    images[:, 0, 14, 14], images[:, 1, 14, 14] = 200, 100
    moved = augmented(images, "shift", digits)
    assert moved.shape == images.shape
    places = [tuple(np.argwhere(image[0] == 200)[0]) for image in moved]
    assert all(abs(row - 14) <= 2 and abs(column - 14) <= 2 for row, column in places)
    assert len(set(places)) > 10
    assert all(np.array_equal(image[0] / 2, image[1]) for image in moved), "channels move together"


def test_half_of_the_images_are_mirrored(digits: Dataset) -> None:
    images = np.zeros((200, 1, 28, 28), dtype=np.uint8)
    images[:, :, :, :14] = 255
    mirrored = augmented(images, "shift-flip", digits)[:, 0, 14, 20] == 255
    assert 70 < mirrored.sum() < 130


@pytest.mark.parametrize(
    "recipe", ["none", "prune:schedule=agp:importance=taylor:events=4+lsq", "adaptive1d_layerwise"]
)
def test_an_interrupted_training_continues_exactly(recipe: str, digits: Dataset, tmp_path: Path) -> None:
    space = ModelSpace.load(VARIOUS, (1, 8, 8), 10)
    start = Network(space.build({"width": 16}, 1).eval())
    checkpoint = tmp_path / "training.pt"

    def run(on_epoch: OnEpoch | None, path: Path | None) -> Network:
        teachers = {"parent": Network(space.build({"width": 16}, 2).eval())}
        training = NetworkTraining(
            digits, TrainingSettings(), 0, epochs=5, teachers=teachers, on_epoch=on_epoch, checkpoint=path
        )
        if recipe == "none":
            return training.fit(start, epochs=5)
        return compression.Recipe.parse(recipe).apply(start, training)

    uninterrupted = run(None, None)
    with pytest.raises(StoppedEarly):
        run(lambda epoch, scores: epoch < 3, checkpoint)
    assert checkpoint.is_file()
    epochs: list[int] = []
    resumed = run(lambda epoch, scores: epochs.append(epoch) or True, checkpoint)
    assert epochs == [4, 5]
    assert not checkpoint.exists()
    assert resumed.structure == uninterrupted.structure
    ours, theirs = resumed.module.state_dict(), uninterrupted.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_damaged_checkpoint_is_ignored(digits: Dataset, network: Network, tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.pt"
    checkpoint.write_bytes(b"not a checkpoint")
    epochs: list[int] = []
    training = NetworkTraining(
        digits,
        TrainingSettings(),
        0,
        on_epoch=lambda epoch, scores: epochs.append(epoch) or True,
        checkpoint=checkpoint,
    )
    training.fit(network, epochs=2)
    assert epochs == [1, 2]


class SeenImages(LossTerm):
    """Records the indices of the training images of each epoch."""

    weight = 0.0

    def __init__(self) -> None:
        self.indices: list[int] = []

    def see(self, chosen: torch.Tensor) -> None:
        self.indices += chosen.tolist()

    def __call__(self, images: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return logits.sum()


def test_shorter_epochs_divide_the_images(digits: Dataset, network: Network, tmp_path: Path) -> None:
    total, count = len(digits.train), 448  # 7 batches
    settings = TrainingSettings(epoch_images=count)
    images = SeenImages()
    NetworkTraining(digits, settings, seed=3).fit(network, epochs=6, losses=[images])
    assert len(images.indices) == 6 * count
    whole_batches = total // 64 * 64
    assert len(set(images.indices[:whole_batches])) == whole_batches, "no image again before all are used"
    uses = np.bincount(images.indices, minlength=total)
    assert set(uses) == {2, 3}
    assert images.indices[:count] != images.indices[total // count * count :][:count]
    checkpoint, resumed = tmp_path / "training.pt", SeenImages()
    with pytest.raises(StoppedEarly):
        NetworkTraining(digits, settings, 3, on_epoch=lambda epoch, scores: epoch < 3, checkpoint=checkpoint).fit(
            network, epochs=6, losses=[SeenImages()]
        )
    NetworkTraining(digits, settings, 3, checkpoint=checkpoint).fit(network, epochs=6, losses=[resumed])
    assert resumed.indices == images.indices[3 * count :]


def test_shorter_epochs_are_reported_one_by_one(digits: Dataset, network: Network) -> None:
    epochs: list[int] = []
    settings = TrainingSettings(epoch_images=320)
    NetworkTraining(digits, settings, 0, on_epoch=lambda epoch, scores: epochs.append(epoch) or True).fit(
        network, epochs=7
    )
    assert epochs == list(range(1, 8))


class Several(torch.nn.Module):
    """Layers of every kind: bare, normalised, without a bias, used twice, and the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.bare, self.normalised, self.norm = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        self.no_bias, self.twice = nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1)
        self.inner = nn.Sequential(nn.Linear(64, 12), nn.ReLU())
        self.last = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.normalised(self.bare(x).relu())).relu()
        x = self.twice(self.twice(self.no_bias(x)).relu())
        return self.last(self.inner(torch.flatten(x, 1)))


def test_normalization_is_folded_away(digits: Dataset) -> None:
    images = digits.normalise(digits.train.inputs[:100])
    module = Several()
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    names = insert(module, images[:2])
    assert names == ["bare", "inner.0"]
    for _ in range(3):
        module.train()(images)
    before = module.eval()(images)
    fold(module, names)
    assert torch.allclose(module(images), before, atol=1e-5)
    assert {name: value.shape for name, value in module.state_dict().items()} == shapes


def test_short_trainings_learn_more_with_folded_normalization(digits: Dataset) -> None:
    plain, normalised = (
        NetworkTraining(digits, TrainingSettings(normalise=on), 0).fit(Network(Several()), epochs=3)
        for on in (False, True)
    )
    shapes = [{name: value.shape for name, value in n.module.state_dict().items()} for n in (plain, normalised)]
    assert shapes[0] == shapes[1]
    accuracies = [
        validate(n.module, digits, TrainingSettings(), Meter(), torch.contiguous_format)["val_accuracy"]
        for n in (plain, normalised)
    ]
    assert accuracies[1] > accuracies[0]


def test_initial_weights_are_copied_as_far_as_shapes_match() -> None:
    def network(width: int, kernel: int = 3) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, width, kernel), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 36, 10)
        )

    donor, wider, narrower = network(8), network(12), network(4)
    donor[1].running_mean.fill_(3.0)
    before = {name: value.clone() for name, value in wider.state_dict().items()}
    share = copy_matching_weights(wider, donor.state_dict())
    total = sum(p.numel() for p in wider.parameters())
    assert share == pytest.approx((8 * 9 + 8 + 8 + 8 + 10 * 8 * 36 + 10) / total)
    assert torch.equal(wider[0].weight[:8], donor[0].weight)
    assert torch.equal(wider[0].weight[8:], before["0.weight"][8:])
    assert wider[1].running_mean[:8].eq(3).all()
    assert copy_matching_weights(narrower, donor.state_dict()) == 1.0
    assert torch.equal(narrower[3].weight, donor[3].weight[:, : 4 * 36])
    larger = network(8, kernel=5)
    copy_matching_weights(larger, donor.state_dict())
    assert torch.equal(larger[0].weight[:, :, 1:4, 1:4], donor[0].weight)
    assert copy_matching_weights(nn.Sequential(nn.Linear(3, 3)), donor.state_dict()) == 0.0
    assert copy_matching_weights(network(8), network(8).state_dict()) == 1.0
