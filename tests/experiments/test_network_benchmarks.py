"""The benchmarks that train or score networks: measures by hand, and runs that are small but real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import slimsearch
from experiments.benchmarks import _output, latency_repeatability, supernet
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        (supernet, ["--networks", "0"], "--networks 0"),
        (supernet, ["--supernet-epochs", "0"], "--supernet-epochs 0"),
        (supernet, ["--space", "magic"], "magic"),
    ],
)
def test_mistakes_are_one_clear_line(
    module: Any,
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert module.main(words) == 2
    found = capsys.readouterr().err
    assert found.startswith("error: ")
    assert said in found
    assert len(found.splitlines()) == 1


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
