"""Integers of few bits: the file shrinks with the bits, and the runtime computes with the same int8 as without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from slimsearch.compression import Network, Recipe, expand_integers, export_onnx
from slimsearch.compression.export.bit_packing import pack_integers
from slimsearch.compression.export.compact import compact
from slimsearch.evaluators import DeployedModel
from tests.compression.no_training import NoTraining

TRAINING = NoTraining(1, 12, 12, images=128)

DISABLED, ALL = (
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
)


def _model(**weights: np.ndarray[Any, Any]) -> onnx.ModelProto:
    """A model that gives its weights."""
    nodes = [helper.make_node("Identity", [name], [f"{name}.out"]) for name in weights]
    outputs = [helper.make_tensor_value_info(f"{name}.out", TensorProto.INT8, w.shape) for name, w in weights.items()]
    tensors = [numpy_helper.from_array(weight, name) for name, weight in weights.items()]
    graph = helper.make_graph(nodes, "g", [], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _run(model: onnx.ModelProto, level: Any) -> list[np.ndarray[Any, Any]]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray[Any, Any]] = session.run(None, {})
    return found


@pytest.mark.parametrize("bits", range(2, 8))
def test_integers_come_back(bits: int, rng: np.random.Generator) -> None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    weights = {
        name: rng.integers(low, high, shape).astype(np.int8)
        for name, shape in {"one": (64, 64, 3, 3), "other": (101, 99), "odd": (7, 333), "few": (3, 3)}.items()
    }
    for weight in weights.values():
        weight.flat[:2] = low, high - 1
    model = _model(**weights)
    before = model.ByteSize()
    pack_integers(model, dict.fromkeys(weights, bits))
    onnx.checker.check_model(model, full_check=True)
    stored = sum(weight.size for weight in weights.values())
    assert model.ByteSize() < before - stored * (8 - bits) / 8 + 3000
    names = {tensor.name for tensor in model.graph.initializer}
    assert not names & weights.keys()
    compact(model)
    for level in (DISABLED, ALL):
        for found, weight in zip(_run(model, level), weights.values(), strict=True):
            assert np.array_equal(found, weight)
    expand_integers(model)
    assert {node.op_type for node in model.graph.node} == {"Identity"}
    assert abs(model.ByteSize() - before) < 100
    for found, weight in zip(_run(model, DISABLED), weights.values(), strict=True):
        assert np.array_equal(found, weight)


def test_a_model_that_would_not_shrink_stays() -> None:
    model = _model(w=np.ones((10, 12), np.int8))
    before = model.SerializeToString()
    pack_integers(model, {"w": 7})
    assert model.SerializeToString() == before


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(1, 16, 3, bias=False), nn.BatchNorm2d(16)
        self.wide, self.depthwise = nn.Conv2d(16, 64, 3, padding="same"), nn.Conv2d(64, 64, 3, stride=2, groups=64)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.wide(self.norm(self.stem(x)).relu()).relu()
        return self.fc(self.depthwise(x).relu().mean((2, 3)))


def _optimized(path: Path, folder: Path) -> tuple[list[str], set[int]]:
    """Operators that ONNX Runtime executes, and the types of its tensors of two dimensions and more."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    return sorted(node.op_type for node in graph.node), {t.data_type for t in graph.initializer if len(t.dims) > 1}


@pytest.mark.parametrize(("stage", "fewer"), [("quantize", "mean_bits=4"), ("weight_only", "mean_bits=4"),
                                              ("quantize:keep_float=last", "mean_bits=3")])  # fmt: skip
def test_the_runtime_runs_what_it_runs_without(stage: str, fewer: str, tmp_path: Path) -> None:
    training = TRAINING
    network, paths = Network(Net().eval()), []
    for number, text in enumerate((stage, f"{stage}:{fewer}")):
        paths.append(tmp_path / f"{number}.onnx")
        export_onnx(Recipe.parse(text).apply(network, training), paths[-1], training.calibration)
    plain, small = paths
    assert small.stat().st_size < 0.75 * plain.stat().st_size
    assert _optimized(plain, tmp_path) == _optimized(small, tmp_path)
    model = onnx.load(small)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    assert model.ir_version == 8
    images = training.calibration.numpy()
    one, other = DeployedModel(plain)(images), DeployedModel(small)(images)
    assert np.sqrt(np.mean((one - other) ** 2)) < 0.3 * one.std()


def test_compact_keeps_ends_and_answers(tmp_path: Path) -> None:
    training, path = TRAINING, tmp_path / "model.onnx"
    export_onnx(Network(Net().eval()), path, training.calibration)
    model, images = onnx.load(path), training.calibration.numpy()
    before = DeployedModel(path)(images)
    compact(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    assert ([one.name for one in model.graph.input], [one.name for one in model.graph.output]) == (
        ["images"],
        ["logits"],
    )
    assert np.array_equal(DeployedModel(path)(images), before)
