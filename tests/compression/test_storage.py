"""Weights stored small: the file shrinks, the answers are the network's, and the runtime folds it all away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from slimsearch import compression
from slimsearch.compression import Network, Quantization
from slimsearch.compression.export.storage import store
from slimsearch.compression.quantization.plan import CODEBOOK, WEIGHTS_FP16, WEIGHTS_INT8
from slimsearch.compression.weight_only import WeightOnly
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel

FORMS = [WEIGHTS_INT8, WEIGHTS_FP16, CODEBOOK]


class Mixed(nn.Module):
    """A convolution with batch normalisation, a depthwise one, a transposed one, both layouts of a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.depthwise = nn.Conv2d(32, 32, 3, groups=32)
        self.up = nn.ConvTranspose2d(32, 24, 2)
        self.mix = nn.Linear(24, 48)
        self.matrix = nn.Parameter(torch.randn(48, 40) * 0.2)
        self.head = nn.Linear(40, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(self.depthwise(self.stem(x)).relu()).relu().flatten(2).transpose(1, 2)  # (N, positions, channels)
        return self.head((self.mix(x).relu() @ self.matrix).mean(dim=1))


@pytest.fixture(scope="module")
def module() -> nn.Module:
    """With few values in every weight, and channels of very different size."""
    torch.manual_seed(0)
    made = Mixed()
    for _ in range(3):
        made(torch.randn(16, 3, 10, 10) * 2 + 1)
    with torch.no_grad():
        made.stem[1].weight.uniform_(0.1, 3)
        for weight in (p for p in made.parameters() if p.ndim > 1):
            step = weight.abs().max() / 15
            weight.copy_((weight / step).round() * step)
    return made.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(32, 3, 10, 10, generator=torch.Generator().manual_seed(1))


def _export(module: nn.Module, form: str | None, images: torch.Tensor, folder: Path) -> Path:
    path = folder / f"{form}.onnx"
    compression.export_onnx(Network(module, {}, Quantization(form=form) if form else None), path, images)
    return path


@pytest.mark.parametrize(("form", "share", "tolerance"), [(WEIGHTS_INT8, 0.5, 0.02), (WEIGHTS_FP16, 0.65, 1e-3),
                                                          (CODEBOOK, 0.6, 1e-5)])  # fmt: skip
def test_smaller_and_the_same_answers(
    form: str, share: float, tolerance: float, module: nn.Module, images: torch.Tensor, tmp_path: Path
) -> None:
    plain, small = _export(module, None, images, tmp_path), _export(module, form, images, tmp_path)
    assert small.stat().st_size < share * plain.stat().st_size
    with torch.no_grad():
        expected = module(images).numpy()
    difference = np.abs(DeployedModel(small)(images.numpy()) - expected).max()
    assert difference <= tolerance * np.abs(expected).max()
    if form != CODEBOOK:
        assert difference > 0, "nothing was rounded"


@pytest.mark.parametrize("form", FORMS)
def test_the_runtime_runs_what_it_runs_for_float32(
    form: str, module: nn.Module, images: torch.Tensor, tmp_path: Path
) -> None:
    operators = []
    for path in (_export(module, None, images, tmp_path), _export(module, form, images, tmp_path)):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 4
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(tmp_path / "optimized.onnx").graph
        assert all(t.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64) for t in graph.initializer)
        operators.append(sorted(node.op_type for node in graph.node))
    assert operators[0] == operators[1]


def test_int8_has_a_scale_for_each_output_channel(module: nn.Module, images: torch.Tensor, tmp_path: Path) -> None:
    plain = onnx.load(_export(module, None, images, tmp_path))
    stored = store(plain, WEIGHTS_INT8)
    tensors = {t.name: numpy_helper.to_array(t) for t in stored.graph.initializer}
    before = {t.name: numpy_helper.to_array(t) for t in plain.graph.initializer}
    shapes = set()
    for node in (n for n in stored.graph.node if n.op_type == "Mul" and n.input[1] in tensors):
        cast = next(n for n in stored.graph.node if n.output[0] == node.input[0])
        multiples, scales, weight = tensors[cast.input[0]], tensors[node.input[1]], before[node.output[0]]
        assert multiples.dtype == np.int8
        assert np.abs(multiples).max() == 127
        assert np.all(np.abs(multiples * scales - weight) <= scales / 2 + 1e-7)
        shapes.add(scales.shape)
    assert shapes == {(32, 1, 1, 1), (1, 24, 1, 1), (1, 48), (1, 40), (10, 1)}


def test_what_gains_nothing_stays_float32() -> None:
    small, wide = np.ones((3, 3), np.float32), np.full((40, 40), 1e6, np.float32)
    many = np.arange(1600, dtype=np.float32).reshape(40, 40)
    tensors = [numpy_helper.from_array(a, n) for n, a in (("small", small), ("wide", wide), ("many", many))]
    tensors.append(numpy_helper.from_array(np.ones(5000, np.float32), "vector"))
    graph = onnx.helper.make_graph([], "g", [], [], tensors)
    left = {form: {t.name for t in store(onnx.helper.make_model(graph), form).graph.initializer} for form in FORMS}
    assert {"small", "vector", "wide"} <= left[WEIGHTS_FP16], "float16 ends at 65504"
    assert "many" not in left[WEIGHTS_FP16]
    assert {"small", "vector", "many"} <= left[CODEBOOK], "a codebook has 256 values"
    assert "wide" not in left[CODEBOOK]
    assert {"small", "vector"} <= left[WEIGHTS_INT8]
    assert not {"wide", "many"} & left[WEIGHTS_INT8]


def test_channels_of_zeros() -> None:
    weight = np.zeros((40, 40), np.float32)
    weight[3] = 2
    node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    graph = onnx.helper.make_graph([node], "g", [], [], [numpy_helper.from_array(weight, "w")])
    stored = {
        t.name: numpy_helper.to_array(t) for t in store(onnx.helper.make_model(graph), WEIGHTS_INT8).graph.initializer
    }
    multiples, scales = stored["0:i"], stored["0:s"]
    assert np.array_equal(multiples * scales, weight)


@pytest.mark.parametrize("dtype", ["int8", "fp16"])
def test_the_stage_is_a_plan(dtype: str, module: nn.Module) -> None:
    result = WeightOnly(dtype=dtype).apply(Network(module), None)
    assert result.quantization == Quantization(form=f"weights-{dtype}")
    assert all(
        torch.equal(one, other) for one, other in zip(result.module.parameters(), module.parameters(), strict=True)
    )
    with pytest.raises(SlimsearchError, match="dtype 'int4' is none of int8, fp16"):
        WeightOnly(dtype="int4")
