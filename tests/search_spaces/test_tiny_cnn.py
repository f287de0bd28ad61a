"""Tiny networks: sizes, images, export and compression of each kind of block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel, DryRunTraining, TrainingSettings
from slimsearch.evaluators.datasets import load_dataset
from slimsearch.search_spaces import ModelSpace

SMALLEST = {
    "block1": "separable", "block2": "separable", "block3": "separable", "depth1": 1, "depth2": 1, "depth3": 1,
    "kernel": 3, "pooled": "early", "weighted": "no", "width1": 4, "width2": 4, "width3": 6, "head": "mean",
}  # fmt: skip
LARGEST = {
    "block1": "plain", "block2": "plain", "block3": "plain", "depth1": 2, "depth2": 2, "depth3": 2, "kernel": 5,
    "pooled": "late", "weighted": "yes", "width1": 12, "width2": 24, "width3": 32, "head": "depthwise",
}  # fmt: skip


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace.load("tiny_cnn", (1, 28, 28), 10)


def test_sizes(space: ModelSpace) -> None:
    sizes = [Network(space.build(point)).params for point in (SMALLEST, LARGEST)]
    assert sizes[0] < 350
    assert 30_000 < sizes[1] < 100_000
    assert space.size == 3**4 * 2**6 * 4 * 6**2


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28)])
def test_other_images(shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    space = ModelSpace.load("tiny_cnn", shape, 7)
    for _ in range(3):
        space.check(space.sample(rng))
    with pytest.raises(SlimsearchError, match="tiny_cnn needs images of at least 8x8 pixels"):
        ModelSpace.load("tiny_cnn", (1, 7, 7), 10)


@pytest.mark.parametrize("pooled", ["early", "middle", "late"])
def test_it_is_pooled_twice(space: ModelSpace, pooled: str) -> None:
    seen = []
    module = space.build({**LARGEST, "pooled": pooled}).eval()
    module.stage3.register_forward_hook(lambda layer, given, result: seen.append(result.shape))
    module(torch.zeros(2, 1, 28, 28))
    assert seen == [(2, 32, 7, 7)]


@pytest.mark.parametrize("block", ["plain", "separable", "inverted"])
@pytest.mark.parametrize("weighted", ["no", "yes"])
def test_it_is_exported_pruned_and_quantized(space: ModelSpace, block: str, weighted: str, tmp_path: Path) -> None:
    blocks = dict.fromkeys(("block1", "block2", "block3"), block)
    network = Network(space.build({**LARGEST, **blocks, "weighted": weighted}).eval())
    training = DryRunTraining(load_dataset("mnist5k"), TrainingSettings(), 0)  # it trains nothing
    pruned = compression.Recipe.parse("prune:sparsity=0.5:round_to=1").apply(network, training)
    assert pruned.params < 0.6 * network.params
    images = np.random.default_rng(0).standard_normal((8, 1, 28, 28), dtype=np.float32)
    for name, one in (("whole", network), ("pruned", pruned)):
        compression.export_onnx(one, tmp_path / f"{name}.onnx", training.calibration)
        expected = one.module(torch.from_numpy(images)).detach().numpy()
        assert np.allclose(DeployedModel(tmp_path / f"{name}.onnx")(images), expected, atol=1e-4)
    quantized = compression.Recipe.parse("quantize").apply(pruned, training)
    compression.export_onnx(quantized, tmp_path / "int8.onnx", training.calibration)
    assert DeployedModel(tmp_path / "int8.onnx")(images).shape == (8, 10)
