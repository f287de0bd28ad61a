"""Laws of every stage of compression: found by import, applied to a trained network, scored from disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.evaluators import Artifact, DeployedModel, ImageTraining, NetworkEvaluator, Task, TrainingSettings
from slimsearch.evaluators.datasets import Dataset
from slimsearch.names import built_in_names
from slimsearch.search_spaces import Candidate, ModelSpace
from tests.conftest import VARIOUS

ARCHITECTURE = {"width": 32}

# What a stage needs to be told to have an effect on this network.
_OPTIONS = {"low_rank": ":energy=0.6", "dynamic_layerwise": ":layers=3"}
STAGES = [f"{name}{_OPTIONS.get(name, '')}" for name in built_in_names("slimsearch.compression")]
_GRADUAL = {"movement": ":schedule=agp"}
IMPORTANCES = [
    f"prune:sparsity=0.5:importance={name}{_GRADUAL.get(name, '')}"
    for name in built_in_names("slimsearch.compression.pruning.importances")
]
SCHEDULES = [f"prune:schedule={name}:events=4" for name in built_in_names("slimsearch.compression.pruning.schedules")]
OTHERS = [
    "prune:after=rewind", "prune:after=scratch", "prune:scope=network", "prune:params=4000", "prune:macs=100000",
    "level:schedule=agp:importance=movement", "level:importance=taylor:scope=network", "weight_only:dtype=fp16",
    "lsq:bits=4", "lsq_plus:bits=3:per_channel=false", "dorefa:bits=2", "qat:target=vnni", "prune:schedule=agp+qat",
    "prune+distill,lsq", "low_rank:params=5000", "prune:schedule=linear+lsq_plus",
]  # fmt: skip
RECIPES = [*STAGES, *IMPORTANCES, *SCHEDULES, *OTHERS, *compression.Recipe.shipped()]


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace.load(VARIOUS, (1, 8, 8), 10)


@pytest.fixture(scope="module")
def trained(space: ModelSpace, digits: Dataset) -> Network:
    training = ImageTraining(digits, TrainingSettings(), seed=3)
    return training.fit(Network(space.build(ARCHITECTURE, 3)), epochs=6)


@pytest.fixture(scope="module")
def training(digits: Dataset, space: ModelSpace, trained: Network) -> ImageTraining:
    teachers = {"parent": trained, "best": trained}
    return ImageTraining(
        digits, TrainingSettings(), seed=3, epochs=2, teachers=teachers, initial=lambda: space.build(ARCHITECTURE, 3)
    )


def _state(network: Network) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.module.state_dict().items()}


def _apply(recipe: str, network: Network, training: ImageTraining) -> Network:
    return compression.Recipe.parse(recipe).apply(network, training)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_new_network_of_the_same_shape_that_loads_from_disk(
    recipe: str, trained: Network, training: ImageTraining, space: ModelSpace, tmp_path: Path
) -> None:
    before = _state(trained)
    result = _apply(recipe, trained, training)
    assert result.module is not trained.module
    after = trained.module.state_dict()
    assert before.keys() == after.keys(), "the input has been changed"
    assert all(torch.equal(before[key], after[key]) for key in before), "the input has been changed"
    images = torch.randn(7, 1, 8, 8)
    assert result.module(images).shape == (7, 10)

    assert not any(module._forward_hooks or module._forward_pre_hooks for module in result.module.modules())
    result.save(tmp_path)
    loaded = Network.load(space.build(ARCHITECTURE, seed=9), tmp_path)
    assert torch.equal(loaded.module(images), result.module(images))
    assert loaded.quantization == result.quantization
    assert repr(loaded.module) == repr(result.module), "widths and dropout rates"


@pytest.mark.parametrize("recipe", [*STAGES, "fused", "prune:after=rewind", "level:schedule=agp:importance=taylor"])
def test_seeds_repeat(recipe: str, trained: Network, training: ImageTraining) -> None:
    one, other = (_apply(recipe, trained, training) for _ in range(2))
    assert (one.structure, one.quantization) == (other.structure, other.quantization)
    first, second = one.module.state_dict(), other.module.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def parent(space: ModelSpace, digits_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A network that a trial left."""
    folder = tmp_path_factory.mktemp("parent")
    evaluator = NetworkEvaluator(space, digits_directory)
    evaluator.evaluate(Task(0, Candidate(ARCHITECTURE), 6, 0, folder), report=lambda epoch, metrics: True)
    return Artifact(folder, ARCHITECTURE, seed=0)


@pytest.mark.parametrize("recipe", [*STAGES, "fused", "lsq:bits=4", "deep-compression"])
def test_the_accuracy_is_that_of_the_file(
    recipe: str, parent: Artifact, space: ModelSpace, digits: Dataset, digits_directory: Path, tmp_path: Path
) -> None:
    evaluator = NetworkEvaluator(space, digits_directory)
    candidate = Candidate(ARCHITECTURE, compression.Recipe.parse(recipe).to_dict())
    task = Task(1, candidate, 3, 0, tmp_path, start=parent, teacher=parent)
    outcome = evaluator.evaluate(task, report=lambda epoch, metrics: True)
    predictions = DeployedModel(tmp_path / "model.onnx").predict(digits, digits.validation)
    assert outcome.metrics["val_accuracy"] == np.mean(predictions == digits.validation.labels)
    assert outcome.metrics["size_kib"] == (tmp_path / "model.onnx").stat().st_size / 1024
    assert "start_latency_ms" in outcome.metrics
    assert ("packed_kib" in outcome.metrics) == (tmp_path / "packed.bin").exists()
    assert not (tmp_path / "training.pt").exists(), "a finished training leaves no checkpoint"
