"""Laws of compression stages: a stage is applied to a trained network, saved, loaded, and scored as exported file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimsearch.compression import Network, Recipe
from slimsearch.evaluators import Artifact, DeployedModel, NetworkEvaluator, NetworkTraining, Task, TrainingSettings
from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.search_spaces import Candidate, FixedModel
from slimsearch.testing._contract import Contract

_SHAPE = (1, 8, 8)
_EPOCHS, _SEED = 6, 3


class VariousLayers(nn.Module):
    """Normalization, a residual connection, a depthwise convolution, dropout and linear layers, for 8x8 gray images."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem, self.norm1, self.act1 = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        self.wide, self.norm2, self.act2 = nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()
        self.back, self.norm3, self.act3 = nn.Conv2d(32, 16, 1), nn.BatchNorm2d(16), nn.ReLU()
        self.depthwise, self.act4 = nn.Conv2d(16, 16, 3, stride=2, groups=16), nn.Hardswish()
        self.drop, self.hidden, self.act5 = nn.Dropout(0.1), nn.Linear(16 * 9, 32), nn.ReLU()
        self.head = nn.Linear(32, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 8, 8) -> (N, num_classes) logits."""
        x = self.act1(self.norm1(self.stem(x)))
        y = self.act2(self.norm2(self.wide(x)))
        x = self.act3(x + self.norm3(self.back(y)))
        x = torch.flatten(self.act4(self.depthwise(x)), 1)
        return self.head(self.act5(self.hidden(self.drop(x))))  # type: ignore[no-any-return]


class RecipeContract(Contract):
    """The law of every recipe: it returns a new network of the same shape, which can be saved and loaded.

    Attributes:
        stage: a value of ``--compress``, or a list of these.
        model: constructs the network to compress, for digits of 8x8 pixels.
        epochs: of a stage's training, unless the recipe sets them.
    """

    subject = "stage"
    stage: Any
    model: ClassVar[Callable[..., nn.Module]] = VariousLayers
    epochs: ClassVar[int] = 2

    @pytest.fixture(scope="class")
    @classmethod
    def digits(cls) -> Dataset:
        """1,797 digits of 8x8 pixels."""
        return load_dataset("digits")

    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> FixedModel:
        """Builds the network."""
        return FixedModel(cls.model, _SHAPE, 10)

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, models: FixedModel, digits: Dataset) -> Network:
        """The trained network, to be compressed."""
        training = NetworkTraining(digits, TrainingSettings(), seed=_SEED)
        return training.fit(Network(models.build(seed=_SEED)), epochs=_EPOCHS)

    @pytest.fixture(scope="class")
    @classmethod
    def training(cls, digits: Dataset, models: FixedModel, trained: Network) -> NetworkTraining:
        """The training of stages."""
        return NetworkTraining(
            digits, TrainingSettings(), seed=_SEED, epochs=cls.epochs, teachers={"parent": trained, "best": trained},
            initial=lambda: models.build(seed=_SEED),
        )  # fmt: skip

    def test_a_new_network_of_the_same_shape_that_loads_from_disk(
        self, stage: str, trained: Network, training: NetworkTraining, models: FixedModel, tmp_path: Path
    ) -> None:
        before = {name: value.clone() for name, value in trained.module.state_dict().items()}
        result = _apply(stage, trained, training)
        assert result.module is not trained.module
        after = trained.module.state_dict()
        assert before.keys() == after.keys(), "the input has been changed"
        assert all(torch.equal(before[key], after[key]) for key in before), "the input has been changed"
        images = torch.randn(7, *_SHAPE)
        assert result.module(images).shape == (7, 10)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in result.module.modules())

        result.save(tmp_path)
        loaded = Network.load(models.build(seed=_SEED + 6), tmp_path)
        assert torch.equal(loaded.module(images), result.module(images))
        assert loaded.quantization == result.quantization
        assert str(loaded.module) == str(result.module), "shapes of layers, or dropout rates, differ"


class StageContract(RecipeContract):
    """Laws of every stage.

    Attributes:
        stage: a value of ``--compress``: the stage's name, with options if it needs any; or a list of these.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def digits_directory(cls, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The data set as workers load it: without its test split."""
        folder = tmp_path_factory.mktemp("digits")
        digits.without_test().save(folder)
        return folder

    @pytest.fixture(scope="class")
    @classmethod
    def parent(cls, models: FixedModel, digits_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
        """The network of a finished trial."""
        folder = tmp_path_factory.mktemp("parent")
        evaluator = NetworkEvaluator(models, digits_directory)
        evaluator.evaluate(Task(0, Candidate({}), _EPOCHS, 0, folder), report=lambda epoch, metrics: True)
        return Artifact(folder, {}, seed=0)

    def test_equal_seeds_give_equal_networks(self, stage: str, trained: Network, training: NetworkTraining) -> None:
        one, other = (_apply(stage, trained, training) for _ in range(2))
        assert (one.structure, one.quantization) == (other.structure, other.quantization)
        first, second = one.module.state_dict(), other.module.state_dict()
        assert all(torch.equal(first[key], second[key]) for key in first)

    def test_the_accuracy_is_that_of_the_file(
        self, stage: str, parent: Artifact, models: FixedModel, digits: Dataset, digits_directory: Path, tmp_path: Path
    ) -> None:
        evaluator = NetworkEvaluator(models, digits_directory)
        task = Task(1, Candidate({}, Recipe.parse(stage).to_dict()), 3, 0, tmp_path, start=parent, teacher=parent)
        outcome = evaluator.evaluate(task, report=lambda epoch, metrics: True)
        predictions = DeployedModel(tmp_path / "model.onnx").predict(digits, digits.validation)
        assert outcome.metrics["val_accuracy"] == np.mean(predictions == digits.validation.targets)
        assert outcome.metrics["size_kib"] == (tmp_path / "model.onnx").stat().st_size / 1024
        assert "start_latency_ms" in outcome.metrics
        assert ("packed_kib" in outcome.metrics) == (tmp_path / "packed.bin").exists()
        assert not (tmp_path / "training.pt").exists(), "a finished training leaves no checkpoint"


def _apply(recipe: str, network: Network, training: NetworkTraining) -> Network:
    return Recipe.parse(recipe).apply(network, training)
