"""Predicted latency: operators are measured once, stored, corrected, and estimated."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import LatencyPredictor, Meter, measure_latency
from slimsearch.evaluators.latency import operators
from slimsearch.evaluators.latency.operators import Cost
from slimsearch.evaluators.latency.predictor import OperatorCosts
from slimsearch.evaluators.latency.reference import Reference


def _export(folder: Path, width: int) -> Path:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, width, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(width * 169, 10)
    )  # fmt: skip
    path = folder / f"{width}.onnx"
    compression.export_onnx(Network(module.eval()), path, torch.randn(4, 1, 28, 28))
    return path


# Disturbed measurements are not stored.
pytestmark = pytest.mark.usefixtures("calm")


def test_operators_are_measured_once_on_a_machine(tmp_path: Path) -> None:
    path = _export(tmp_path, 8)
    first = LatencyPredictor(folder=tmp_path / "cache").predict(path)
    assert first.ms > 0
    assert first.measured_operators >= 3
    assert first.known
    again = LatencyPredictor(folder=tmp_path / "cache").predict(path)
    assert (again.ms, again.measured_operators) == (first.ms, 0)
    # Another batch is another cost.
    assert LatencyPredictor(batch=4, folder=tmp_path / "cache").predict(path).measured_operators > 0


def test_predictions_are_close_to_measurements(tmp_path: Path) -> None:
    paths = [_export(tmp_path, width) for width in (8, 256)]
    predictor = LatencyPredictor(folder=tmp_path / "cache")
    small, large = (predictor.predict(path).ms for path in paths)
    measured = [latency.median_ms for latency in measure_latency(paths, (1, 28, 28), blocks=10)]
    assert large > 3 * small
    assert 0.3 < small / measured[0] < 3  # the machine may be busy
    assert 0.3 < large / measured[1] < 3


def test_measured_pairs_correct_predictions_and_an_outlier_does_not(tmp_path: Path) -> None:
    paths = [_export(tmp_path, width) for width in (8, 16, 24, 32, 48, 64, 96, 128)]
    predictor = LatencyPredictor(folder=tmp_path / "cache")
    before = {path: predictor.predict(path).ms for path in paths}
    for path in paths[:6]:
        predictor.correct(path, 1.5 * before[path])
    predictor.correct(paths[6], 20 * before[paths[6]])
    assert predictor.predict(paths[7]).ms == pytest.approx(1.5 * before[paths[7]], rel=0.25)


def test_a_damaged_cache_is_measured_again(tmp_path: Path) -> None:
    path = _export(tmp_path, 8)
    count = LatencyPredictor(folder=tmp_path / "cache").predict(path).measured_operators
    (file,) = (tmp_path / "cache").glob("*.json")
    whole = file.read_text()
    for damaged in ("", whole[:-5], "[]", json.dumps({key: {"ms": -1, "overhead_ms": 0} for key in json.loads(whole)})):
        file.write_text(damaged)
        assert LatencyPredictor(folder=tmp_path / "cache").predict(path).measured_operators == count


def test_several_write_at_once(tmp_path: Path) -> None:
    def add(number: int) -> None:
        costs = OperatorCosts(1, 1, tmp_path)
        for i in range(10):
            costs.add({f"{number}-{i}": Cost(number, i), "all": Cost(number, 0)})

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(4)))
    assert len(OperatorCosts(1, 1, tmp_path).read()) == 41


def test_an_operator_that_cannot_run_alone_is_estimated(tmp_path: Path) -> None:
    def value(name: str, shape: list[object]) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    def branch(op: str) -> onnx.GraphProto:  # reads `scaled` of the graph around it
        node = onnx.helper.make_node(op, ["scaled"], [f"{op}_out"])
        return onnx.helper.make_graph([node], op, [], [onnx.ValueInfoProto(name=f"{op}_out")])

    nodes = [
        onnx.helper.make_node("Exp", ["images"], ["scaled"]),
        onnx.helper.make_node("ReduceSum", ["images"], ["sum"], keepdims=0),
        onnx.helper.make_node("Cast", ["sum"], ["condition"], to=onnx.TensorProto.BOOL),
        onnx.helper.make_node("If", ["condition"], ["logits"], then_branch=branch("Sin"), else_branch=branch("Cos")),
    ]
    graph = onnx.helper.make_graph(
        nodes, "g", [value("images", ["batch", 1, 8, 8])], [value("logits", ["batch", 1, 8, 8])]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "if.onnx"))
    found = LatencyPredictor(folder=tmp_path / "cache").predict(tmp_path / "if.onnx")
    assert found.guessed_operators == 1
    assert not found.known
    assert np.isfinite(found.ms)


def test_a_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_text("no")
    with pytest.raises(SlimsearchError, match=r"cannot load '.*no\.onnx'"):
        LatencyPredictor(folder=tmp_path / "cache").predict(tmp_path / "no.onnx")


def test_disturbed_costs_are_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reference, "calm", lambda self, times: False)
    path = _export(tmp_path, 8)
    found = [LatencyPredictor(folder=tmp_path / "cache", patience=0.0).predict(path) for _ in range(2)]
    assert found[0].measured_operators == found[1].measured_operators > 0


def test_many_operators_take_no_patience(
    tmp_path: Path, half_disturbed: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading and measuring them takes longer than the patience."""
    call = operators._call

    def slow(*arguments: Any) -> Any:
        half_disturbed.now += 100
        return call(*arguments)

    monkeypatch.setattr(operators, "_call", slow)
    found = operators.operators_of(_export(tmp_path, 8), 1, 1, tmp_path)
    costs, calm = operators.measure(found, 1, patience=10.0)
    assert costs.keys() == {operator.key for operator in found}
    assert calm


def test_it_does_not_wait_for_calm_beside_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reference, "calm", lambda self, times: False)
    path = _export(tmp_path, 8)
    with Meter(tmp_path / "locks").computing():
        predictor = LatencyPredictor(meter=Meter(tmp_path / "locks"), folder=tmp_path / "cache", patience=120.0)
        started = time.monotonic()
        assert predictor.predict(path).measured_operators > 0
        assert time.monotonic() - started < 60


def test_after_waiting_in_vain_it_waits_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reference, "calm", lambda self, times: False)
    path, predictor = _export(tmp_path, 8), LatencyPredictor(folder=tmp_path / "cache", patience=3.0)
    seconds = []
    for _ in range(2):
        started = time.monotonic()
        predictor.predict(path)
        seconds.append(time.monotonic() - started)
    assert seconds[1] < seconds[0] - 1.5
