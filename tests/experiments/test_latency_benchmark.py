"""The benchmark of the latency predictor: a small run of it, and the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.benchmarks import _output, latency_predictor
from tests.conftest import ROOT
from tests.experiments.conftest import Mistake

PAGE = ROOT / "docs" / "latency.md"
RESULTS = ROOT / "experiments" / "benchmarks" / "results" / "latency_predictor.json"


@pytest.mark.slow
@pytest.mark.usefixtures("calm")
def test_a_small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("page.md").write_text(PAGE.read_text())
    words = ["--spaces", "lenet", "--forms", "fp32", "--calibrate", "2", "--networks", "3", "--blocks", "2"]
    words += ["--devices", "unoptimized", "--others", "3", "--out", "kept", "--json", "rows.json", "--page", "page.md"]
    assert latency_predictor.main(words) == 0
    printed = capsys.readouterr().out
    found = json.loads(Path("rows.json").read_text())
    assert [row["calibrated"] for row in found["rows"]] == [0, 2]
    assert all(row["networks"] == 3 and row["operators"] > 0 and row["guessed"] == 0 for row in found["rows"])
    assert [(row["device"], row["calibrated"]) for row in found["devices"]] == [("unoptimized", 0), ("unoptimized", 2)]
    assert found["rows"][0]["operators"] >= found["rows"][1]["operators"]
    assert latency_predictor.tables(found)["predictor"] in printed
    assert latency_predictor.tables(found)["predictor"] in Path("page.md").read_text()

    written = {path: path.stat().st_mtime_ns for path in Path("kept").rglob("*.onnx")}
    assert latency_predictor.main(words) == 0
    assert json.loads(Path("rows.json").read_text()) == found, "stored rows are shown again"
    capsys.readouterr()
    assert latency_predictor.main([*words, "--blocks", "3"]) == 2
    assert "rows.json" in capsys.readouterr().err
    assert written == {path: path.stat().st_mtime_ns for path in written}


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--networks", "2"], "--networks: 2"), (["--page", "nowhere.md"], "nowhere.md")],
)
def test_mistakes_are_one_clear_line(words: list[str], said: str, mistake: Mistake) -> None:
    assert said in mistake(latency_predictor.main, words)


@pytest.mark.skipif(not RESULTS.is_file(), reason="not measured yet")
def test_the_page_says_what_was_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert _output.filled(page, latency_predictor.tables(json.loads(RESULTS.read_text(encoding="utf-8")))) == page
