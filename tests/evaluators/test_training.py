"""Training of image classifiers: learning, reproducibility, early stopping, checkpoints, initial weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from slimsearch import compression
from slimsearch.compression import AfterStep, LossTerm, Network
from slimsearch.compression.pruning.selection import GradualChannels
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Meter, NetworkTraining, StoppedEarly, TrainingSettings
from slimsearch.evaluators.datasets import Dataset, Split
from slimsearch.evaluators.tasks import Classification, LearningTask, OwnScore
from slimsearch.evaluators.tasks.multilabel import Multilabel
from slimsearch.evaluators.tasks.regression import Regression
from slimsearch.evaluators.tasks.segmentation import Segmentation
from slimsearch.evaluators.training import transforms
from slimsearch.evaluators.training.augmentation import NAMED, Augmentation
from slimsearch.evaluators.training.batches import TrainingBatches
from slimsearch.evaluators.training.folded_norm import fold, insert
from slimsearch.evaluators.training.network_training import OnEpoch, validate
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


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_smaller_networks_have_at_least_the_learning_rate_of_larger_ones(one: int, other: int) -> None:
    few, many = sorted([one, other])
    default = TrainingSettings()
    assert 0.03 >= default.peak(few) >= default.peak(many) >= 0.01
    assert default.peak(10_000) == 0.01
    assert TrainingSettings(learning_rate=0.2).peak(few) == 0.2


def test_training_and_stages_take_the_learning_rate_of_the_networks_size(digits: Dataset, network: Network) -> None:
    def weights(rate: float | None, recipe: str) -> list[torch.Tensor]:
        training = NetworkTraining(digits, TrainingSettings(learning_rate=rate), 0, 1, {"parent": network})
        trained = (
            compression.Recipe.parse(recipe).apply(network, training) if recipe else training.fit(network, epochs=1)
        )
        return list(trained.module.parameters())

    peak = TrainingSettings().peak(network.params)
    assert peak > 0.01
    for recipe in ("", "distill"):
        by_default, given_it, given_less = (weights(rate, recipe) for rate in (None, peak, 0.01))
        assert all(map(torch.equal, by_default, given_it))
        assert not all(map(torch.equal, by_default, given_less))


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


def test_what_the_task_or_the_inputs_do_not_allow_is_refused(digits: Dataset) -> None:
    numbers = Regression().fitted(digits.train.targets[:, None].astype(np.float32))
    signals = replace(digits, train=Split(digits.train.inputs[:, :, 0], digits.train.targets))
    floats = replace(digits, train=Split(digits.train.inputs.astype(np.float32), digits.train.targets))
    for data, step, said in (
        (replace(digits, task=numbers), "cutmix", "--task regression does not allow augmentation 'cutmix'"),
        (replace(digits, task=Segmentation()), "mixup", "--task segmentation does not allow augmentation 'mixup'"),
        (signals, "randaugment", "'randaugment' is for images, and the inputs are signals"),
        (digits, "mask", "'mask' is for signals, and the inputs are images"),
        (floats, "randaugment", "is for grey and RGB images of bytes"),
        (digits, "cutout+cutout", "the same one twice"),
    ):
        with pytest.raises(SlimsearchError, match=said):
            Augmentation(step, data)
    assert not Augmentation("auto", replace(digits, augmentation="shift")).is_none
    assert Augmentation("auto", replace(digits, augmentation="shift", task=OwnScore())).is_none


@pytest.mark.parametrize("name", NAMED)
def test_named_augmentations_are_reproducible_and_change_each_batch(name: str, digits: Dataset) -> None:
    data = digits if name != "mask" else _signals(digits)
    batches = TrainingBatches(data, Augmentation(name, data), torch.device("cpu"), torch.contiguous_format)
    chosen = np.arange(40)
    first, second, other = (batches(chosen, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first[0].shape == (40, *data.input_shape)
    assert first[0].dtype == torch.float32
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    changes = name not in ("none", "auto")  # digits are not augmented by default
    assert torch.equal(first[0], other[0]) != changes
    state = torch.get_rng_state()
    batches(chosen, np.random.default_rng(2))
    assert torch.equal(state, torch.get_rng_state()), "dropout does not depend on augmentation"


def _signals(digits: Dataset) -> Dataset:
    parts = (Split(s.inputs.reshape(-1, 1, 64), s.targets) for s in (digits.train, digits.validation))
    return replace(digits, **dict(zip(("train", "validation"), parts, strict=True)))


def test_cutout_erases_one_square_of_each_image(digits: Dataset) -> None:
    ones = torch.ones(300, 2, 16, 12)
    erased = transforms.cutout(ones, 0) == 0
    assert torch.equal(erased[:, 0], erased[:, 1])
    for image in erased[:, 0]:
        rows, columns = torch.nonzero(image.any(1)), torch.nonzero(image.any(0))
        height, width = (int(side.max() - side.min()) + 1 for side in (rows, columns))
        assert height <= 6
        assert width <= 6
        assert int(image.sum()) == height * width
    assert len({image.numpy().tobytes() for image in erased}) > 60
    # A square whose center is anywhere, cut at the border.
    assert 0.6 < float(erased[:, 0].float().mean()) * 16 * 12 / 36 < 0.9


def test_masks_of_signals_are_single_spans() -> None:
    erased = (transforms.mask(torch.ones(200, 3, 40), 0) == 0)[:, 0]
    lengths = erased.sum(dim=1)
    assert int(lengths.max()) == 10
    assert int(lengths.min()) == 0
    starts = (erased.int().diff(dim=1) == 1).sum(dim=1) + erased[:, 0].int()
    assert torch.equal(starts, (lengths > 0).int())


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_targets_are_mixed_as_the_inputs(name: str) -> None:
    labels = torch.arange(20) // 5  # ordered by class
    images = torch.nn.functional.one_hot(labels, 4).float()[:, :, None, None].expand(20, 4, 8, 8).contiguous()
    pairs = []
    for seed in range(20):
        batch, shares = transforms.mixed([name], images, labels, 4, seed)
        assert torch.allclose(shares.sum(dim=1), torch.ones(20))
        assert torch.allclose(batch.mean(dim=(2, 3)), shares, atol=1e-6), "a channel is the share of its class"
        numbers = labels.float()
        _, mixed = transforms.mixed([name], images, numbers, 4, seed)
        assert torch.allclose(mixed, shares @ torch.arange(4.0), atol=1e-5)
        pairs.append(int((shares > 0).sum(dim=1).max()))
    assert max(pairs) == 2, "examples of other classes are partners"


def test_masks_of_pixels_move_with_their_images(digits: Dataset) -> None:
    inputs = digits.train.inputs
    masks = (inputs[:, 0] > 100).astype(np.uint8)
    data = replace(digits, train=Split(inputs, masks), task=Segmentation(), mean=(0.0,), std=(1.0,))
    batches = TrainingBatches(
        data, Augmentation("shift-flip", data), torch.device("cpu"), torch.contiguous_format
    )  # fmt: skip
    chosen = np.arange(100)
    images, moved = batches(chosen, np.random.default_rng(0))
    assert torch.equal(images[:, 0] * 255 > 100, moved == 1)
    assert not np.array_equal(moved.numpy(), masks[chosen])


@pytest.mark.parametrize(
    "task", [Classification(class_weights="balanced", label_smoothing=0.1), Multilabel(lead="auc")]
)
def test_a_network_learns_from_mixed_targets(task: LearningTask, digits: Dataset, network: Network) -> None:
    def targets(split: Split) -> np.ndarray:
        return split.targets if isinstance(task, Classification) else np.eye(10, dtype=np.float32)[split.targets]

    train, validation = (Split(split.inputs, targets(split)) for split in (digits.train, digits.validation))
    data = replace(digits, train=train, validation=validation, task=task.fitted(train.targets))
    curve: list[Mapping[str, float]] = []
    settings = TrainingSettings(augmentation="noise+mixup+cutmix")
    training = NetworkTraining(data, settings, 0, on_epoch=lambda epoch, scores: curve.append(scores) or True)
    training.fit(network, epochs=12)
    lead = data.task.leading()[0]
    assert curve[-1][f"val_{lead}"] > max(0.8, curve[0][f"val_{lead}"])


def test_statistics_of_norms_are_those_of_the_training(digits: Dataset) -> None:
    """However slowly they move by themselves: the share of those from before is at most 1%."""
    norm = nn.BatchNorm2d(1, momentum=0.001, affine=False)
    with torch.no_grad():
        norm.running_mean.fill_(1000.0)  # type: ignore[union-attr]
        norm.running_var.fill_(1000.0)  # type: ignore[union-attr]
    network = Network(nn.Sequential(norm, nn.Flatten(), nn.Linear(64, 10)))
    settings = TrainingSettings(batch_size=32, augmentation="none")
    after = NetworkTraining(digits, settings, seed=0).fit(network, epochs=1).module[0]  # type: ignore[index]
    images = digits.normalise(digits.train.inputs)
    assert abs(float(after.running_mean) - float(images.mean())) < 10.5
    assert abs(float(after.running_var) - float(images.var())) < 10.5
    assert after.momentum == 0.001


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
    batches = TrainingBatches(data, Augmentation(augmentation, data), device, torch.contiguous_format)
    batch, _ = batches(np.arange(len(images)), np.random.default_rng(0))
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
    ("recipe", "augmentation"),
    [
        ("none", "auto"), ("prune:schedule=agp:importance=taylor:events=4+lsq", "auto"),
        ("prune:schedule=linear:events=4+distill", "none"), ("adaptive1d_layerwise", "auto"),
        ("none", "shift+randaugment+cutout+noise+mixup+cutmix"),
    ],
)  # fmt: skip
def test_an_interrupted_training_continues_exactly(
    recipe: str, augmentation: str, digits: Dataset, tmp_path: Path
) -> None:
    space = ModelSpace.load(VARIOUS, (1, 8, 8), 10)
    start = Network(space.build({"width": 16}, 1).eval())
    checkpoint = tmp_path / "training.pt"
    settings = TrainingSettings(augmentation=augmentation)

    def run(on_epoch: OnEpoch | None, path: Path | None) -> Network:
        teachers = {"parent": Network(space.build({"width": 16}, 2).eval())}
        training = NetworkTraining(
            digits,
            settings,
            0,
            epochs=5,
            teachers=teachers,
            on_epoch=on_epoch,
            checkpoint=path,
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


def test_a_gradual_pruning_trains_on_without_the_channels(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with channels that stay zero to the end, when they are removed."""
    torch.manual_seed(0)
    body = (
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
    )
    head = (nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 16), nn.LayerNorm(16), nn.Linear(16, 10))
    start = Network(nn.Sequential(*body, *head).eval())
    settings = TrainingSettings(augmentation="none", batch_size=128)
    recipe = compression.Recipe.parse("prune:sparsity=0.5:round_to=1:schedule=agp:events=4+distill")
    widths: list[int] = []

    def train() -> Network:
        training = NetworkTraining(digits, settings, 0, epochs=3, teachers={"parent": start})
        return recipe.apply(start, training)

    plain = nn.Linear.forward

    def forward(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        if layer.training:
            widths.append(layer.in_features)
        return plain(layer, x)

    monkeypatch.setattr(nn.Linear, "forward", forward)
    smaller = train()
    assert widths[-1] < widths[0]
    steps = len(widths) // 2  # two linear layers
    assert widths.count(widths[-1]) > 0.4 * steps, "half of the training"
    monkeypatch.setattr(GradualChannels, "has_finished", lambda self: False)
    masked = train()
    assert smaller.structure == masked.structure
    ours, theirs = smaller.module.state_dict(), masked.module.state_dict()
    for name in theirs:
        assert torch.allclose(ours[name], theirs[name], atol=2e-3), name


def test_the_checkpoint_of_another_training_is_ignored(digits: Dataset, network: Network, tmp_path: Path) -> None:
    """A later stage of the candidate may have as many steps, as when another trial has trained its network."""
    checkpoint = tmp_path / "training.pt"

    def train(start: Network, on_epoch: OnEpoch | None, path: Path | None) -> Network:
        training = NetworkTraining(digits, TrainingSettings(), 0, epochs=2, on_epoch=on_epoch, checkpoint=path)
        return training.fit(start, epochs=2)

    with pytest.raises(StoppedEarly):
        train(network, lambda epoch, scores: False, checkpoint)
    assert checkpoint.is_file()
    later = Network(copy.deepcopy(network.module))
    with torch.no_grad():
        next(later.module.parameters()).mul_(0.5)
    expected, found = train(later, None, None), train(later, None, checkpoint)
    theirs, ours = expected.module.state_dict(), found.module.state_dict()
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
