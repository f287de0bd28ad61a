"""The benchmarks that train or score networks: measures by hand, and runs that are small but real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import slimsearch
from experiments.benchmarks import _output, augmentation, gpu, latency_repeatability, precision, supernet
from tests.conftest import ROOT
from tests.experiments.conftest import Mistake


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        (supernet, ["--networks", "0"], "--networks: 0"),
        (supernet, ["--supernet-epochs", "0"], "--supernet-epochs: 0"),
        (supernet, ["--space", "magic"], "magic"),
    ],
)
def test_mistakes_are_one_clear_line(module: Any, words: list[str], said: str, mistake: Mistake) -> None:
    assert said in mistake(module.main, words)


def test_without_a_gpu_it_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--dataset", "digits"]) == 2
    assert capsys.readouterr().err == "error: --device cuda: PyTorch finds no CUDA device; use cpu or auto\n"


@pytest.mark.slow
def test_what_is_measured_on_a_gpu_tried_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("page.md").write_text("<!-- table: gpu -->\n<!-- end -->\n")
    words = ["--device", "cpu", "--dataset", "digits", "--space", "tiny_cnn", "--workers", "1", "2", "--seconds", "5"]
    assert gpu.main([*words, "--epochs", "1", "--trials", "2", "--json", "gpu.json", "--page", "page.md"]) == 0
    found = json.loads(Path("gpu.json").read_text())
    assert [row["workers"] for row in found["workers"]] == [1, 2]
    assert all(row["trainings"] >= 1 and row["a_minute"] > 0 and row["failed"] == [] for row in found["workers"])
    first, *_, again = found["trainings"]
    assert again["same_weights_again"] is True
    assert first["accuracy"] == found["trainings"][1]["accuracy"]
    assert set(found["search"]["files"]) >= {"as trained"}
    assert Path("page.md").read_text().count("\n| ") >= 6
    assert "trainings a minute" in capsys.readouterr().out


def test_augmentations_are_compared_on_the_same_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--data", "digits", "--seeds", "1", "--epochs", "1", "--images", "130", "--json", "rows.json"]
    assert augmentation.main(words) == 0
    rows = json.loads(Path("rows.json").read_text())
    assert [row["augmentation"] for row in rows] == list(augmentation.CASES["digits"].augmentations)
    began: list[str] = []
    monkeypatch.setattr(augmentation, "trained", lambda *arguments: began.append("again"))
    assert augmentation.main(words) == 0
    assert began == []
    none, shift = rows[:2]
    difference = 100 * (shift["accuracy"] - none["accuracy"])
    assert f"| digits | shift | {100 * shift['accuracy']:.2f} | {difference:+.2f} |" in capsys.readouterr().out
    assert augmentation.main(["--data", "cifar10"]) == 2
    assert "--cifar10 is missing" in capsys.readouterr().err


@pytest.mark.slow
def test_a_supernet_against_networks_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--networks", "4", "--epochs", "1", "--supernet-epochs", "1", "--subnets", "5", "--finalists", "3"]
    words += ["--seeds", "1", "--out", "kept", "--json", "rows.json"]
    (tmp_path / "kept" / "one_by_one").mkdir(parents=True)
    (tmp_path / "kept" / "one_by_one" / "config.yaml").write_text("of a run that was interrupted")
    assert supernet.main(words) == 0
    rows = json.loads(Path("rows.json").read_text())
    assert [row["what"] for row in rows] == ["one by one", "supernet"]
    assert [row["networks_trained"] for row in rows] == [4, 3]
    for row, folder in zip(rows, ("one_by_one", "supernet-0"), strict=True):
        (model, *_) = json.loads((tmp_path / "kept" / folder / "top_models.json").read_text())
        assert row["architecture"] == model["architecture"]
        assert row["test_accuracy"] == model["metrics"]["test_accuracy"]
        assert row["seconds"] > 1
    assert rows[1]["rank_correlation"] is not None
    assert "both: 0" in capsys.readouterr().out, "nothing so small saves time"

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("it is kept")

    monkeypatch.setattr(slimsearch, "search", never)
    assert supernet.main(words) == 0
    capsys.readouterr()
    assert supernet.main([*words, "--epochs", "2"]) == 2
    assert "one_by_one.json" in capsys.readouterr().err


def test_the_page_on_latency_has_what_was_measured() -> None:
    results = Path(latency_repeatability.__file__).parent / "results" / "latency_repeatability.json"
    page = (ROOT / "docs" / "latency.md").read_text()
    table = latency_repeatability.table_of(json.loads(results.read_text()))
    assert _output.filled(page, {"repeatability": table}) == page
    found = json.loads(results.read_text())["ways"]["together"]["agreement"]
    assert found["rank_correlation"] >= 0.98
    assert found["median_deviation"] < 0.05


@pytest.mark.slow
def test_files_of_fewer_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("page.md").write_text("<!-- table: precision -->\n<!-- end -->\n")
    words = ["--seeds", "1", "--networks", "1", "--epochs", "1", "--trained-epochs", "0"]
    assert precision.main([*words, "--json", "found.json", "--page", "page.md"]) == 0
    rows = {row["file"]: row for row in json.loads(Path("found.json").read_text())}
    assert rows["quantize:mean_bits=3"]["size_kib"] <= rows["quantize"]["size_kib"]
    chosen = [row for row in rows.values() if row.get("chosen")]
    assert chosen
    for row in chosen:
        family = "weight_only" if row["file"].startswith("weight_only") else "quantize"
        assert row["val_accuracy"] >= rows[family]["val_accuracy"] - 0.0021
    assert all("test_accuracy" in rows[name] for name in ("quantize", "weight_only"))
    assert "tiny_cnn: quantize" in Path("page.md").read_text()
