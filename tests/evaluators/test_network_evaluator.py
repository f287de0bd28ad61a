"""Evaluation of networks: reported metrics, measured files, early stopping, and errors."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimsearch import compression
from slimsearch.compression import Network, Quantization
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Artifact, LatencySettings, NetworkEvaluator, Task, load_examples, measure_latency
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.deployed.deployed_model import DeployedModel, check_parity
from slimsearch.search_spaces import Candidate, ModelSpace
from tests.conftest import RUNTIMES, TINY, skip_without

ARCHITECTURE = {"act": 1, "width": 8}


@pytest.fixture(scope="module")
def evaluator(digits_directory: Path) -> NetworkEvaluator:
    return NetworkEvaluator(ModelSpace.load(TINY, (1, 8, 8), 10), digits_directory)


def task(folder: Path, recipe: Mapping[str, Mapping[str, object]] | None = None, **options: object) -> Task:
    folder.mkdir(exist_ok=True)
    return Task(0, Candidate(ARCHITECTURE, recipe or {}), 3, 5, folder, **options)


def always(epoch: int, metrics: Mapping[str, float]) -> bool:
    return True


def test_costs_are_known_before_training_and_hold_afterwards(evaluator: NetworkEvaluator, tmp_path: Path) -> None:
    reported: dict[int, dict[str, float]] = {}

    def report(epoch: int, metrics: Mapping[str, float]) -> bool:
        reported[epoch] = dict(metrics)
        return True

    outcome = evaluator.evaluate(task(tmp_path), report=report)
    assert list(reported) == [0, 1, 2, 3]
    for name in ("params", "macs"):
        assert reported[0][name] == outcome.metrics[name]
    # The file also carries the metadata, which the one before training does not need.
    assert reported[0]["size_kib"] == pytest.approx(outcome.metrics["size_kib"], abs=0.5)
    assert outcome.metrics["latency_low_ms"] <= outcome.metrics["latency_ms"] <= outcome.metrics["latency_high_ms"]
    assert outcome.metrics["params"] == 8 * 9 + 8 + 8 * 9 * 10 + 10
    assert outcome.metrics["macs"] == 8 * 9 * 6 * 6 + 8 * 9 * 10
    assert outcome.metrics["latency_alone"] == 1
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "model.onnx", "network.json", "weights.safetensors", "predictions.safetensors",
    }  # fmt: skip


def test_latency_that_ends_no_trial_is_measured_after_the_training_alone(
    evaluator: NetworkEvaluator, tmp_path: Path
) -> None:
    known: set[str] = set()

    def report(epoch: int, metrics: Mapping[str, float]) -> bool:
        known.update(metrics if epoch == 0 else ())
        return True

    outcome = replace(evaluator, latency=LatencySettings(early=False)).evaluate(task(tmp_path), report=report)
    assert known == {"size_kib", "params", "macs"}
    assert outcome.metrics["latency_ms"] > 0


def test_stopped_before_training_nothing_is_trained(evaluator: NetworkEvaluator, tmp_path: Path) -> None:
    outcome = evaluator.evaluate(task(tmp_path), report=lambda epoch, metrics: "latency_ms" not in metrics)
    assert {"size_kib", "latency_ms", "params", "macs"} <= outcome.metrics.keys()
    assert "val_accuracy" not in outcome.metrics
    assert list(tmp_path.iterdir()) == []


def test_same_seed_same_accuracy(evaluator: NetworkEvaluator, tmp_path: Path) -> None:
    found = [evaluator.evaluate(task(tmp_path / str(i)), report=always).metrics for i in range(2)]
    deterministic = ("val_accuracy", "size_kib", "params", "macs")
    assert [found[0][name] for name in deterministic] == [found[1][name] for name in deterministic]
    assert np.array_equal(load_examples(tmp_path / "0"), load_examples(tmp_path / "1"))


def test_seconds_of_training_are_those_of_training_alone(evaluator: NetworkEvaluator, tmp_path: Path) -> None:
    """Not of what is before the first step and after the last one, and not of stages that do not train."""
    epochs: list[float] = []

    def slow(epoch: int, metrics: Mapping[str, float]) -> bool:
        if epoch == 0:
            time.sleep(1)  # as a measurement or a wait for the machine
        epochs.append(time.perf_counter())
        return True

    started = time.perf_counter()
    seconds = evaluator.evaluate(task(tmp_path / "parent"), report=slow).metrics["training_seconds"]
    assert 0 < epochs[-1] - epochs[-2] <= seconds < time.perf_counter() - started - 1
    start = Artifact(tmp_path / "parent", ARCHITECTURE)
    quantized = task(tmp_path / "child", compression.Recipe.parse("quantize").to_dict(), start=start)
    assert evaluator.evaluate(quantized, report=always).metrics["training_seconds"] == 0
    pruned = task(tmp_path / "pruned", compression.Recipe.parse("prune:epochs=1").to_dict(), start=start)
    metrics = evaluator.evaluate(pruned, report=always).metrics
    assert metrics["training_seconds"] > 0
    assert 0 < metrics["channels_removed"] < 1
    assert metrics["channels_asked"] == 0.3


def test_a_recipe_from_the_start_and_from_a_trained_parent(evaluator: NetworkEvaluator, tmp_path: Path) -> None:
    recipe = compression.Recipe.parse("prune:epochs=1,quantize").to_dict()
    whole = evaluator.evaluate(task(tmp_path / "whole", recipe), report=always).metrics
    evaluator.evaluate(task(tmp_path / "parent"), report=always)
    start = Artifact(tmp_path / "parent", ARCHITECTURE)
    resumed = evaluator.evaluate(task(tmp_path / "child", recipe, start=start), report=always).metrics
    assert whole["val_accuracy"] == resumed["val_accuracy"]
    assert whole["size_kib"] == resumed["size_kib"]
    assert "start_latency_ms" in resumed
    assert "start_latency_ms" not in whole


def test_distillation_from_the_best_network_of_another_architecture(
    evaluator: NetworkEvaluator, tmp_path: Path
) -> None:
    other = {"act": 0, "width": 24}
    (tmp_path / "best").mkdir()
    evaluator.evaluate(Task(0, Candidate(other), 2, 1, tmp_path / "best"), report=always)
    evaluator.evaluate(task(tmp_path / "parent"), report=always)
    start, best = Artifact(tmp_path / "parent", ARCHITECTURE), Artifact(tmp_path / "best", other)
    recipe = compression.Recipe.parse("distill:teacher=best:epochs=1").to_dict()
    evaluator.evaluate(task(tmp_path / "child", recipe, start=start, teacher=best), report=always)
    with pytest.raises(SlimsearchError, match="distillation has no teacher 'best'"):
        evaluator.evaluate(task(tmp_path / "none", recipe, start=start), report=always)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_metrics_are_those_of_the_file_that_the_runtime_runs(
    runtime: str, evaluator: NetworkEvaluator, digits: Dataset, tmp_path: Path
) -> None:
    skip_without(runtime)
    evaluator = replace(evaluator, latency=LatencySettings(runtime=runtime, how="measured"))
    known: dict[str, float] = {}

    def report(epoch: int, metrics: Mapping[str, float]) -> bool:
        if epoch == 0:
            known.update(metrics)
        return True

    outcomes = [evaluator.evaluate(task(tmp_path / "parent"), report=report)]
    start = Artifact(tmp_path / "parent", ARCHITECTURE)
    recipe = compression.Recipe.parse("quantize").to_dict()
    if runtime == "executorch":
        with pytest.raises(SlimsearchError, match="--runtime executorch"):
            evaluator.evaluate(task(tmp_path / "child", recipe, start=start), report=always)
    else:
        outcomes.append(evaluator.evaluate(task(tmp_path / "child", recipe, start=start), report=always))
    for folder, outcome in zip(("parent", "child"), outcomes, strict=False):
        path = tmp_path / folder / outcome.artifacts["model"]
        assert path.suffix == evaluator.latency.suffix
        assert {entry.name for entry in path.parent.iterdir()} == set(outcome.artifacts.values())
        assert outcome.metrics["size_kib"] == path.stat().st_size / 1024
        right = DeployedModel(path, runtime=runtime).predict(digits, digits.validation) == digits.validation.targets
        assert outcome.metrics["val_accuracy"] == right.mean()
        assert np.array_equal(load_examples(path.parent)[:, 0], right)
        assert outcome.metrics["latency_blocks"] > 0
    assert known["size_kib"] == pytest.approx(outcomes[0].metrics["size_kib"], abs=0.5)
    if len(outcomes) > 1:
        assert outcomes[1].metrics["size_kib"] < outcomes[0].metrics["size_kib"]
        assert outcomes[1].metrics["start_latency_ms"] > 0


def test_a_file_that_disagrees_with_its_network_is_an_error(
    evaluator: NetworkEvaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = compression.export_onnx

    def wrong(network: Network, path: Path, images: torch.Tensor, metadata: Mapping[str, str] | None = None) -> None:
        module = network.copy_module()
        with torch.no_grad():
            next(module.parameters()).mul_(1.1)
        honest(Network(module), path, images, metadata)

    monkeypatch.setattr(compression, "export_onnx", wrong)
    with pytest.raises(SlimsearchError, match="the exported file disagrees with the network"):
        evaluator.evaluate(task(tmp_path), report=always)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_is_an_error(evaluator: NetworkEvaluator, tmp_path: Path, value: float) -> None:
    broken = replace(evaluator, metrics={"mine": lambda path, data: value})
    with pytest.raises(SlimsearchError, match="metric 'mine' is"):
        broken.evaluate(task(tmp_path), report=always)


def test_a_user_metric_has_no_access_to_the_test_split(evaluator: NetworkEvaluator, tmp_path: Path) -> None:
    seen: list[Dataset] = []

    def mine(path: Path, data: Dataset) -> float:
        seen.append(data)
        return 1.0

    outcome = replace(evaluator, metrics={"mine": mine}).evaluate(task(tmp_path), report=always)
    assert outcome.metrics["mine"] == 1.0
    assert [data.test for data in seen] == [None]


def test_macs_of_known_layers() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(4 * 16, 10))
    assert Network(module).macs(torch.zeros(1, 1, 8, 8)) == 4 * 9 * 36 + 4 * 9 * 16 + 4 * 16 * 10
    of_two = nn.Sequential(nn.Flatten(), nn.Unflatten(0, (2, -1)))
    with pytest.raises(SlimsearchError, match="the network fails on one input: RuntimeError"):
        Network(of_two).macs(torch.zeros(2, 1, 8, 8))


def test_latency_follows_the_work(tmp_path: Path) -> None:
    """Four times the width is slower, eight images take longer than one, and the order of the files is kept."""
    images = torch.randn(2, 1, 16, 16)
    paths = []
    for width in (64, 16):
        module = nn.Sequential(nn.Conv2d(1, width, 3), nn.Conv2d(width, width, 3), nn.Flatten())
        paths.append(tmp_path / f"{width}.onnx")
        compression.export_onnx(Network(module.eval()), paths[-1], images)
    wide, narrow = measure_latency(paths, (1, 16, 16), blocks=10, patience=2.0)
    assert wide.median_ms > 1.5 * narrow.median_ms
    batch = LatencySettings(batch=8).batch
    (eight,) = measure_latency(paths[:1], (1, 16, 16), batch=batch, blocks=10, patience=2.0)
    assert eight.median_ms > 2 * wide.median_ms


def test_a_quantized_file_that_disagrees_with_its_network_is_an_error(
    evaluator: NetworkEvaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding is borne, a layer that went missing is not."""
    honest = compression.export_onnx
    recipe = compression.Recipe.parse("quantize").to_dict()
    outcome = evaluator.evaluate(task(tmp_path / "right", recipe), report=always)
    assert 0 < outcome.metrics["parity_error"] < 0.1

    def wrong(network: Network, path: Path, images: torch.Tensor, metadata: Mapping[str, str] | None = None) -> None:
        module = network.copy_module()
        if network.quantization is not None:
            with torch.no_grad():
                next(module.parameters()).mul_(-1)
        honest(Network(module, network.structure, network.quantization), path, images, metadata)

    monkeypatch.setattr(compression, "export_onnx", wrong)
    with pytest.raises(SlimsearchError, match=r"disagrees with the network: .*allowed 0\.3"):
        evaluator.evaluate(task(tmp_path / "wrong", recipe), report=always)


def _deep(images: torch.Tensor) -> nn.Sequential:
    """32 convolutions, whose BatchNorms have the statistics of `images`: small differences at the input grow."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, 2, 1)]
    for _ in range(32):
        layers += [nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8, momentum=None), nn.ReLU6()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    with torch.no_grad():
        module(images)
    return module.eval()


def test_rounding_that_adds_up_in_a_deep_network_is_no_fault_of_the_file(tmp_path: Path, digits: Dataset) -> None:
    images = digits.normalise(digits.train.inputs[:64])
    network = Network(_deep(images), quantization=Quantization())
    path = tmp_path / "model.onnx"
    compression.export_onnx(network, path, images)
    assert check_parity(network, path, DeployedModel(path), digits, lambda: images) > 0.3, "more than in other networks"

    without_activation, other_channels = network.copy_module(), network.copy_module()
    without_activation[6] = nn.Identity()
    with torch.no_grad():
        first = other_channels.get_parameter("0.weight")
        first.copy_(first.roll(1, 0))
    for wrong in (without_activation, other_channels):
        compression.export_onnx(replace(network, module=wrong), path, images)
        with pytest.raises(SlimsearchError, match="disagrees with the network"):
            check_parity(network, path, DeployedModel(path), digits, lambda: images)
