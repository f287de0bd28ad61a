"""Predictions of exported files for new examples, by every task and kind of file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import slimsearch
from slimsearch.cli.commands import predict
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel, Predictor
from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.evaluators.tasks.regression import Regression

RNG = np.random.default_rng(0)
SIGNALS = RNG.normal(3, 2, (80, 2, 10)).astype(np.float32)
NUMBERS = np.stack([SIGNALS.mean(axis=(1, 2)) * 1000, SIGNALS[:, 0, 0]], axis=1)
LABELS = np.stack([SIGNALS[:, 0, 0] > 3, SIGNALS[:, 0, 1] > 3, SIGNALS[:, 1, 0] > 3], axis=1).astype(int)


def exported(folder: Path, inputs: Any, targets: Any, network: nn.Module, task: Any, **options: Any) -> Dataset:
    torch.manual_seed(0)
    data = load_dataset((inputs, targets), task=task, **options)
    slimsearch.export(network, folder / "model.onnx", data)
    return data


def dense(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))


def said(file: Path, *inputs: Path, **options: Any) -> None:
    predict.run(
        {"file": str(file), "inputs": list(map(str, inputs)), "top": 1, "json": False, "runtime": "onnxruntime"}
        | options
    )


@pytest.mark.parametrize(
    ("task", "targets"),
    [("classification", LABELS[:, 0]), ("multilabel", LABELS), ("regression", NUMBERS)],
)
def test_predictions_are_those_of_the_data_set(
    task: str, targets: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = 2 if targets.ndim == 1 else targets.shape[1]
    data = exported(tmp_path, SIGNALS, targets, dense(20, outputs), task)
    expected = DeployedModel(tmp_path / "model.onnx").predict(data, data.train)
    np.savez(tmp_path / "new.npz", x=data.train.inputs)
    said(tmp_path / "model.onnx", tmp_path / "new.npz", json=True)
    lines = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [line["example"] for line in lines] == list(range(len(expected)))
    for line, row in zip(lines, expected, strict=True):
        if task == "classification":
            assert next(iter(line["classes"])) == data.classes[row]
        else:
            assert list(line["prediction"]) == list(data.classes)
            assert list(line["prediction"].values()) == pytest.approx(row.tolist(), rel=1e-4, abs=1e-2)
    np.save(tmp_path / "new.npy", data.train.inputs[:3])
    said(tmp_path / "model.onnx", tmp_path / "new.npy")
    first, *_ = lines_of_text = capsys.readouterr().out.splitlines()
    assert len(lines_of_text) == 3
    if task == "regression":
        assert float(first.split()[2]) == pytest.approx(expected[0, 0], rel=1e-4)


def test_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = RNG.integers(0, 256, (40, 6, 8), dtype=np.uint8)
    masks = (images > 127).astype(np.int64)
    data = exported(tmp_path, images, masks, nn.Conv2d(1, 2, 1), "segmentation")
    np.save(tmp_path / "new.npy", data.train.inputs[:2, 0])
    predictor = Predictor(tmp_path / "model.onnx")
    found = [prediction.values for prediction in predictor.file(tmp_path / "new.npy")]
    assert np.array_equal(found, DeployedModel(tmp_path / "model.onnx").predict(data, data.train)[:2])
    said(tmp_path / "model.onnx", tmp_path / "new.npy")
    assert all("%" in line for line in capsys.readouterr().out.splitlines())


class Halves(Regression):
    """A task of the user's."""


def test_outputs_of_a_task_of_the_user_are_not_interpreted(tmp_path: Path) -> None:
    data = exported(tmp_path, SIGNALS, NUMBERS, dense(20, 2), Halves())
    np.save(tmp_path / "new.npy", data.train.inputs)
    predictor = Predictor(tmp_path / "model.onnx")
    assert predictor.task is None
    outputs = DeployedModel(tmp_path / "model.onnx")(data.normalise(data.train.inputs).numpy())
    assert np.allclose([prediction.values for prediction in predictor.file(tmp_path / "new.npy")], outputs, atol=1e-4)


def test_files_of_other_shapes_and_kinds(tmp_path: Path) -> None:
    exported(tmp_path, SIGNALS, NUMBERS, dense(20, 2), "regression")
    predictor = Predictor(tmp_path / "model.onnx")
    np.save(tmp_path / "short.npy", SIGNALS[:, :, :5])
    np.save(tmp_path / "text.npy", SIGNALS.astype(str))
    np.savez(tmp_path / "named.npz", inputs=SIGNALS)
    (tmp_path / "damaged.npy").write_bytes(b"no array")
    for name, message in {
        "short.npy": r"inputs have the shape \(80, 2, 5\); the file takes \(N, 2, 10\)",
        "text.npy": "inputs are <U32; needed: numbers",
        "named.npz": "has no array x",
        "damaged.npy": "damaged.npy",
        "missing.npy": "cannot read .*missing.npy",
    }.items():
        with pytest.raises(SlimsearchError, match=message):
            list(predictor.file(tmp_path / name))
    with pytest.raises(SlimsearchError, match=r"takes examples of the shape \(2, 10\), not image files"):
        said(tmp_path / "model.onnx", tmp_path / "image.png")


@pytest.mark.parametrize(
    "task",
    ["[]", '{"name": 1}', '{"name": "regression", "mean": [1.0], "std": [1.0]}', '{"name": "regression", "x": 1}'],
)
def test_damaged_descriptions_of_the_task(task: str, tmp_path: Path) -> None:
    exported(tmp_path, SIGNALS, NUMBERS, dense(20, 2), "regression")
    model = onnx.load(tmp_path / "model.onnx")
    next(entry for entry in model.metadata_props if entry.key == "task").value = task
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(SlimsearchError):
        Predictor(tmp_path / "model.onnx")
