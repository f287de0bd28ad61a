"""The reproductions, on few images and for few epochs: their rows are complete and are those of files."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

import slimsearch
from experiments.network_folder import NetworkFolder
from experiments.reproduce import _table
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.search_spaces import FixedModel

KEYS = {"flow", "source", "params", "test_accuracy", "latency_ms", "size_kib"}


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    return load_dataset("mnist5k")


def _rows(name: str, arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    module = importlib.import_module(f"experiments.reproduce.{name}")
    monkeypatch.setattr(
        sys, "argv", [name, *arguments, "--out", str(folder / "out"), "--json", str(folder / "rows.json")]
    )
    module.main()
    rows: list[dict[str, object]] = json.loads((folder / "rows.json").read_text())
    return rows


@pytest.mark.parametrize("flow", ["lenet_prune", "lenet_qat", "hello_nas", "resnet18_fused"])
def test_kept_results_have_no_times_of_another_machine(flow: str) -> None:
    rows = _table.kept_nni_rows(flow)
    assert rows
    assert not any({"latency_ms", "seconds"} & row.keys() for row in rows)
    assert all(row["source"] == "NNI 3.0, kept" for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet_prune", "lenet_qat"])
def test_lenet(
    name: str, mnist: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"experiments.reproduce.{name}")
    monkeypatch.setattr(_table, "mnist", lambda folder: mnist)
    for constant in ("BASE_EPOCHS", "EPOCHS", "NNI_EPOCHS", "NNI_BASE_EPOCHS"):
        monkeypatch.setattr(module, constant, 2, raising=False)
    arguments = ["--mnist", "unused", "--seeds", "1", "--with-nni"]
    rows = _rows(name, arguments, tmp_path, monkeypatch)
    assert {row["source"] for row in rows} == {"tutorial", "NNI 3.0, run here", "slimsearch"}
    ours = [row for row in rows if row["source"] == "slimsearch"]
    assert all(row.keys() >= KEYS for row in ours)
    if name == "lenet_prune":
        assert ours[-1]["params"] <= 2421
    files = {path.parent.name: path for path in (tmp_path / "out").glob("*/model.onnx")}
    assert len(files) == len(ours)
    accuracies = {slimsearch.accuracy(path, mnist, mnist.test) for path in files.values()}
    assert accuracies == {row["test_accuracy"] for row in ours}
    written = {path: path.stat().st_mtime_ns for path in files.values()}
    again = _rows(name, arguments, tmp_path, monkeypatch)
    assert [row["test_accuracy"] for row in again] == [row["test_accuracy"] for row in rows]
    assert written == {path: path.stat().st_mtime_ns for path in files.values()}, "nothing is made again"
    assert "slimsearch" in capsys.readouterr().out


@pytest.mark.slow
def test_resnet18(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("experiments.reproduce.resnet18_fused")
    for constant in ("BASE_EPOCHS", "FUSED_EPOCHS"):
        monkeypatch.setattr(module, constant, 1)
    for split, count in (("train", 260), ("test", 20)):
        for index in range(count):
            folder = tmp_path / "cifar" / split / str(index % 2)
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (index % 256, 255 * (index % 2), 0)).save(folder / f"{index}.png")
    rows = _rows("resnet18_fused", ["--cifar10", str(tmp_path / "cifar")], tmp_path, monkeypatch)
    base, *fused = (row for row in rows if row["source"] == "slimsearch")
    assert len(fused) == 2
    for row in fused:
        assert row["params"] <= 2_800_000 < base["params"]
        assert row["size_kib"] < base["size_kib"] / 12
        assert row["latency_ms"] < base["latency_ms"]


def test_a_step_is_made_once_and_again_when_it_is_another(digits: Dataset, tmp_path: Path) -> None:
    networks = NetworkFolder(tmp_path, FixedModel.load(f"{__file__}:_model", digits.input_shape, 10), {}, digits)
    base = networks.train("base", 1, 0)
    written = base.file.stat().st_mtime_ns
    assert networks.train("base", 1, 0) == base
    assert base.file.stat().st_mtime_ns == written
    pruned = networks.compress("pruned", base, "prune", 1, 0)
    assert pruned.metrics["params"] < base.metrics["params"]
    assert networks.test_accuracy(pruned.file) == slimsearch.accuracy(pruned.file, digits, digits.test)
    assert networks.train("base", 2, 0).file.stat().st_mtime_ns != written
    further = networks.compress("further", pruned, "quantize", 1, 0)
    assert list(further.artifact.recipe) == ["prune", "quantize"]


def test_a_model_that_does_not_fit_says_so() -> None:
    with pytest.raises(SlimsearchError, match="the model fails on images of 1x28x28: RuntimeError"):
        FixedModel.load("torchvision.models:resnet18", (1, 28, 28), 10).build()
    with pytest.raises(SlimsearchError, match=r"gives \(2, 7\) for 2 images of 1x8x8; the data set needs \(2, 10\)"):
        FixedModel(lambda: _model(7), (1, 8, 8), 10).build()
    with pytest.raises(SlimsearchError, match="has no 'resnet99'"):
        FixedModel.load("torchvision.models:resnet99", (3, 32, 32), 10)


def _model(num_classes: int):
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, num_classes))
