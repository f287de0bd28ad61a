"""Laws of every stage of compression: found by import, applied to a trained network, scored from disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import compression
from compression import Network
from evaluators import DeployedModel, ImageTraining, NetworkEvaluator, Task, TrainingSettings
from evaluators._task import Artifact
from evaluators.datasets import Dataset
from search_spaces import Candidate, ModelSpace
from slimsearch_names import built_in_names
from tests.conftest import TINY

NAMES = built_in_names("compression")
ARCHITECTURE = {"act": 0, "width": 16}


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace.load(TINY, (1, 8, 8), 10)


@pytest.fixture(scope="module")
def training(digits: Dataset, space: ModelSpace) -> ImageTraining:
    teachers = {"parent": Network(space.build(ARCHITECTURE, 1).eval())}
    return ImageTraining(digits, TrainingSettings(), seed=3, epochs=2, teachers=teachers)


@pytest.fixture(scope="module")
def trained(space: ModelSpace, training: ImageTraining) -> Network:
    return training.fit(Network(space.build(ARCHITECTURE)), epochs=8)


@pytest.mark.parametrize("name", NAMES)
def test_input_is_unchanged_and_shape_kept(name: str, trained: Network, training: ImageTraining) -> None:
    before = {key: value.clone() for key, value in trained.module.state_dict().items()}
    result = compression.apply({name: {}}, trained, training)
    assert result is not trained
    assert result.module is not trained.module
    after = trained.module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    images = torch.randn(5, 1, 8, 8)
    assert result.module(images).shape == trained.module(images).shape


@pytest.mark.parametrize("name", NAMES)
def test_seeds_repeat(name: str, trained: Network, training: ImageTraining) -> None:
    one, other = (compression.apply({name: {}}, trained, training) for _ in range(2))
    assert one.structure == other.structure
    first, second = one.module.state_dict(), other.module.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_loads_again_from_disk(
    name: str, trained: Network, training: ImageTraining, space: ModelSpace, tmp_path: Path
) -> None:
    result = compression.apply({name: {}}, trained, training)
    result.save(tmp_path)
    loaded = Network.load(space.build(ARCHITECTURE, seed=9), tmp_path)
    images = torch.randn(7, 1, 8, 8)
    assert torch.equal(loaded.module(images), result.module(images))
    assert loaded.quantization == result.quantization
    assert compression._network.widths(loaded.module) == compression._network.widths(result.module)
    assert compression._network.dropout_rates(loaded.module) == compression._network.dropout_rates(result.module)


@pytest.mark.parametrize("name", NAMES)
def test_the_accuracy_is_that_of_the_file(
    name: str, trained: Network, space: ModelSpace, digits: Dataset, digits_directory: Path, tmp_path: Path
) -> None:
    evaluator = NetworkEvaluator(space, digits_directory)
    (tmp_path / "parent").mkdir()
    (tmp_path / "child").mkdir()
    first = Task(0, Candidate(ARCHITECTURE), 2, 0, tmp_path / "parent")
    evaluator.evaluate(first, report=lambda epoch, metrics: True)
    candidate = Candidate(ARCHITECTURE, {name: {}})
    second = Task(1, candidate, 2, 0, tmp_path / "child", start=Artifact(tmp_path / "parent", ARCHITECTURE))
    outcome = evaluator.evaluate(second, report=lambda epoch, metrics: True)
    predictions = DeployedModel(tmp_path / "child" / "model.onnx").predict(digits, digits.validation)
    assert outcome.metrics["val_accuracy"] == np.mean(predictions == digits.validation.labels)
    assert outcome.metrics["size_kib"] == (tmp_path / "child" / "model.onnx").stat().st_size / 1024
    assert "start_latency_ms" in outcome.metrics
