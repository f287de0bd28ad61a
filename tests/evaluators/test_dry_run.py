"""Dry runs: the cost of a recipe's file is known before training."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.evaluators import DryRunTraining, NetworkTraining, TrainingSettings, size_kib
from slimsearch.evaluators.datasets import Dataset
from slimsearch.search_spaces import ModelSpace
from tests.conftest import VARIOUS

RECIPES = [
    "prune:sparsity=0.5",
    "prune:early=0.5:late=0.25:importance=taylor",
    "prune:schedule=agp:sparsity=0.5",
    "prune:schedule=linear:importance=movement:params=2000",
    "prune:sparsity=0.4,distill,quantize",
    "prune:schedule=agp:sparsity=0.5+distill,weight_only",
    "low_rank:energy=0.8",
    "quantize:keep_float=ends",
    "weight_only:dtype=fp16",
    "qat",
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_dry_run_gives_the_size_of_the_trained_file(recipe: str, digits: Dataset, tmp_path: Path) -> None:
    space = ModelSpace.load(VARIOUS, (1, 8, 8), 10)
    network = Network(space.build({"width": 32}, 0).eval())
    results = []
    for kind in (DryRunTraining, NetworkTraining):
        training = kind(digits, TrainingSettings(), 0, 2, {"parent": network}, initial=network.copy_module)
        result = compression.Recipe.parse(recipe).apply(network, training)
        compression.export_onnx(result, tmp_path / f"{kind.__name__}.onnx", training.calibration)
        results.append((result, size_kib(tmp_path / f"{kind.__name__}.onnx")))
    (dry, expected), (trained, size) = results
    assert dry.params == trained.params
    assert dry.macs(training.calibration[:1]) == trained.macs(training.calibration[:1])
    assert expected == pytest.approx(size, rel=0.02)
