"""The comparison of methods: what it shows is what the files are, and it makes nothing twice."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import compare_compression
from experiments.network_folder import NetworkFolder
from slimsearch import compression
from slimsearch.evaluators import DeployedModel
from slimsearch.evaluators.datasets import Dataset
from tests.conftest import ROOT, VARIOUS, environment
from tests.experiments.conftest import Mistake

RECIPES = {
    "half": "prune:sparsity=0.5:importance=fpgm",
    "too-much": "low_rank:params=1",
    "coarse": "lsq:bits=3",
    "stored": "cluster:epochs=0",
}
CALL = ("--space", VARIOUS, "--dataset", "digits", "--epochs", "2", "--tune-epochs", "1", "--train-images", "400")


@dataclass
class Comparison:
    folder: Path
    shown: str
    rows: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("comparison")
    (folder / "recipes.yaml").write_text(yaml.safe_dump(RECIPES, sort_keys=False))
    words = ("--recipes", "recipes.yaml", "--json", "rows.json", "--plot", "plot.svg")
    script = str(ROOT / "experiments" / "compare_compression.py")
    done = subprocess.run(
        [sys.executable, script, *CALL, *words, "--only", *list(RECIPES)[:3]],
        # Nobody else has to pause for what is measured here.
        cwd=folder, env={**environment(), "TMPDIR": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((folder / "rows.json").read_text())
    return Comparison(folder, done.stdout, {row["name"]: row for row in rows})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: measure nothing at the end, and leave its threads alone."""
    monkeypatch.setattr("experiments.network_folder.use_one_thread", lambda: None)
    monkeypatch.setattr(NetworkFolder, "latencies", lambda self, files, batch=1: [float(batch)] * len(files))


@pytest.mark.slow
def test_rows(comparison: Comparison, digits: Dataset) -> None:
    rows = comparison.rows
    assert list(rows) == ["base", "half", "too-much", "coarse"], "the order is that of the recipes"
    assert [row["kind"] for row in rows.values()] == ["fp32", "fp32", None, "int8"]
    assert [row["lines"] for row in rows.values()] == [0, 3, 2, 2]
    assert rows["half"]["params"] < rows["base"]["params"] == rows["coarse"]["params"]
    assert rows["half"]["macs"] < rows["base"]["macs"]
    assert rows["coarse"]["packed_kib"] < rows["coarse"]["size_kib"] < rows["base"]["size_kib"]
    assert rows["half"]["packed_kib"] is None
    assert digits.test is not None
    for name in ("base", "coarse"):
        file = comparison.folder / "runs" / "compare" / ("base" if name == "base" else f"methods/{name}") / "model.onnx"
        predictions = DeployedModel(file).predict(digits, digits.test)
        assert rows[name]["test_accuracy"] == (predictions == digits.test.targets).mean()
        assert rows[name]["size_kib"] == file.stat().st_size / 1024
        result = json.loads((file.parent / "result.json").read_text())["metrics"]
        assert rows[name]["val_accuracy"] == result["val_accuracy"]
        assert rows[name]["seconds"] == result["training_seconds"]
        assert 0 < rows[name]["latency_ms"] < rows[name]["latency_batch64_ms"]


@pytest.mark.slow
def test_table_and_plot(comparison: Comparison) -> None:
    for name, row in comparison.rows.items():
        if row["reason"] is None:
            line = next(line for line in comparison.shown.splitlines() if line.startswith(f"│ {name} "))
            assert f"{100 * row['test_accuracy']:.2f}" in line
            assert f"{row['params']:,.0f}" in line
    assert "methods 1 of 400" in comparison.shown
    plot = (comparison.folder / "plot.svg").read_text()
    assert plot.count("<!-- coarse -->") == 2, "once a panel"


@pytest.mark.slow
def test_a_method_that_cannot_be_applied(comparison: Comparison) -> None:
    row = comparison.rows["too-much"]
    assert row["reason"].startswith("low-rank factors")
    assert row["test_accuracy"] is row["latency_ms"] is row["size_kib"] is None
    assert f"\ntoo-much: {row['reason']}" in comparison.shown
    assert "│ too-much:" in comparison.shown


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_second_run_makes_what_is_missing(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(comparison.folder)
    results = {path: path.stat().st_mtime_ns for path in comparison.folder.glob("runs/**/result.json")}
    assert len(results) == 3
    assert compare_compression.main([*CALL, "--recipes", "recipes.yaml", "--json", "again.json"]) == 0
    assert "epoch " not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in results} == results
    again = {row["name"]: row for row in json.loads((comparison.folder / "again.json").read_text())}
    assert again.pop("stored")["kind"] == "storage only"
    measured = ("latency_ms", "latency_batch64_ms")
    for name, row in comparison.rows.items():
        assert {k: v for k, v in again[name].items() if k not in measured} == {
            k: v for k, v in row.items() if k not in measured
        }


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_base_from_elsewhere(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    base = comparison.folder / "runs" / "compare" / "base"
    words = ["--space", VARIOUS, "--dataset", "digits", "--json", "rows.json", "--base"]
    assert compare_compression.main([*words, str(base), "--epochs", "0", "--only", "weights-int8"]) == 0
    one, two = json.loads((tmp_path / "rows.json").read_text())
    assert (one["name"], two["name"], two["kind"]) == ("base", "weights-int8", "weights only")
    assert one["test_accuracy"] == comparison.rows["base"]["test_accuracy"]
    assert two["size_kib"] < one["size_kib"]
    assert sorted(path.name for path in (tmp_path / "runs" / "compare").iterdir() if path.is_dir()) == [
        "data", "weights-int8",
    ]  # fmt: skip
    for folder, said in (
        (base.parent / "methods" / "coarse", "lsq:bits=3"),
        (base.parent, "result.json"),
    ):
        assert compare_compression.main([*words, str(folder)]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "bits", "fewer"),
    [("any", 8, False), ("any", 7, False), ("any", 6, True), ("vnni", 8, False), ("vnni", 7, True)],
)
def test_fewer_bits_than_the_file_computes_with_are_int8(target: str, bits: int, fewer: bool) -> None:
    learned = {"layer": compression.LearnedRange((0.1,), bits, 0.1, 0)}
    plan = compression.Quantization(target=target, learned=learned)
    assert (plan.kind, plan.fewer_bits) == ("int8", fewer)
    assert not compression.Quantization(target=target).fewer_bits


def test_the_built_in_list_has_every_method() -> None:
    made = compare_compression._methods(compare_compression.METHODS, None)
    methods = {method.name: method.recipe.to_dict() for method in made}
    used = {stage.name for method in made for stage in method.recipe.stages}
    from slimsearch.names import built_in_names

    assert used == set(built_in_names("slimsearch.compression"))
    options = [recipe["prune"] for recipe in methods.values() if "prune" in recipe]
    assert {o["importance"] for o in options if "importance" in o} == set(
        built_in_names("slimsearch.compression.pruning.importances")
    )
    assert set(compression.Recipe.shipped()) <= set(methods)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--model --space"),
        (["--model", "torchvision.models:resnet"], "resnet"),
        (["--model", "nowhere.py:make"], "nowhere.py"),
        (["--model", f"{VARIOUS}", "--architecture", "{}"], "--architecture.*--space"),
        (["--space", "lenett"], "'lenett'"),
        (["--space", VARIOUS, "--architecture", "width=16"], "--architecture width=16"),
        (["--space", VARIOUS, "--architecture", '{"width": 17}'], "'width'.*17.*16, 32"),
        (["--space", VARIOUS, "--dataset", "digit"], "'digit'.*digits"),
        (["--space", VARIOUS, "--epochs", "0"], "--epochs 0.*--base"),
        (["--space", VARIOUS, "--epochs", "3", "--base", "x"], "--epochs.*--base"),
        (["--space", VARIOUS, "--base", "nowhere"], "--base 'nowhere'"),
        (["--space", VARIOUS, "--tune-epochs", "0"], "--tune-epochs: 0"),
        (["--space", VARIOUS, "--train-images", "5000"], "--train-images 5000.*1259"),
        (["--space", VARIOUS, "--learning-rate", "0"], "--learning-rate 0"),
        (["--space", VARIOUS, "--plot", "plot.pdf"], "--plot 'plot.pdf'.*png.*svg"),
        (["--space", VARIOUS, "--only", "prun"], "--only 'prun'.*base, prune-l1"),
        (["--space", VARIOUS, "--recipes", "nowhere.yaml"], "'nowhere.yaml'"),
        (["--space", VARIOUS, "--recipes", "wrong.yaml"], "'wrong.yaml'.*'x'.*'prun'"),
        (["--space", VARIOUS, "--recipes", "list.yaml"], "'list.yaml'"),
        (["--space", VARIOUS, "--recipes", "name.yaml"], "'name.yaml'.*'a/b'"),
        (["--space", VARIOUS, "--out", "taken"], "'taken'.*--out"),
        (["--space", VARIOUS, "--tune-epochs", "x"], "--tune-epochs.*'x'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_clear_line(words: list[str], said: str, tmp_path: Path, mistake: Mistake) -> None:
    for name, text in (("wrong", "x: prun"), ("list", "- prune"), ("name", "a/b: prune")):
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "something").touch()
    assert re.search(said, mistake(compare_compression.main, ["--dataset", "digits", *words]))


@pytest.mark.slow
def test_another_comparison_in_the_same_folder(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(comparison.folder)
    assert compare_compression.main([*CALL, "--learning-rate", "0.1"]) == 2
    assert "--learning-rate 0.01, not 0.1" in capsys.readouterr().err
