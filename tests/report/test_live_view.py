"""The live view on terminals of several widths."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import COMPLETE, RUNNING, SEARCH, Trial
from slimsearch.report.live_view import Progress, live_view
from slimsearch.search_spaces import Candidate
from tests.conftest import ROOT
from tests.test_progress import on_a_terminal

ARCHITECTURE = {"conv1": 16, "kernel": 5, "activation": "[red]relu\x1b[2J", "name": "x" * 90}


def trial(number: int, state: str, metrics: dict[str, float], curve: tuple[dict[str, float], ...] = ()) -> Trial:
    candidate = Candidate(ARCHITECTURE, {"prune": {"sparsity": 0.5}, "quantize": {}}, {})
    return Trial(number, candidate, SEARCH, state, 5, 0, metrics=metrics, curve=curve)


@pytest.mark.parametrize("width", [60, 80, 110])
@pytest.mark.parametrize("objectives", ["val_accuracy,latency_ms,size_kib", "val_r2,params", "loss:min"])
def test_numbers_are_never_cut(width: int, objectives: str) -> None:
    ranking = Ranking.of(Configuration(space="lenet", objectives=objectives))
    usual = {"val_accuracy": 0.98765, "latency_ms": 12.3456, "size_kib": 123456.7}
    metrics = {**usual, **{one.metric: 0.123456 for one in ranking.objectives if one.metric not in usual}}
    front = [trial(i, COMPLETE, metrics) for i in range(9)]
    running = [
        trial(1234, RUNNING, {}, ({"epoch": 2.0, ranking.leading.metric: 0.5},)), trial(1235, RUNNING, {}),
    ]  # fmt: skip
    progress = Progress("compression", 8, 20, {"running": 2, "failed": 0, "ruled out": 3}, 3725.0, 130.0)
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=True, color_system=None).print(
        live_view(progress, running, front, ranking)
    )
    text = file.getvalue()
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) == 2 + 1 + 2 + 6 + 1
    assert "8/20" in lines[0]
    assert "1:02:05 elapsed" in text
    assert "2/5" in text
    assert "\x1b[2J" not in text
    for number in ("98.77", "12.3", "123456.7") if objectives.startswith("val_accuracy") else ("0.1235",):
        assert len(re.findall(rf"(?<!\S){re.escape(number)}0*(?!\S)", text)) == 6, text


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 110])
def test_a_run_on_a_terminal(columns: int, tmp_path: Path) -> None:
    """Lines are as wide as the terminal, numbers are whole, and the time left counts what follows the search."""
    words = [
        "--space", "lenet", "--dataset", "digits", "--image-size", "20", "--trials", "4", "--epochs", "2",
        "--top-k", "1", "--compress", "quantize", "--workers", "1", "--run-dir", "run",
    ]  # fmt: skip
    code, text = on_a_terminal([sys.executable, str(ROOT / "experiments" / "run.py"), *words], columns, tmp_path)
    assert code == 0, text
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", text)]
    live = [line for line in lines if line.startswith(("front ", "running ")) or "elapsed" in line]
    assert max(map(len, live)) <= columns
    assert any("search" in line and "/4" in line for line in lines)
    members = [line for line in live if line.startswith("front ")]
    assert members
    for line in members:
        assert re.match(r"front +\d+ +(\d+\.\d+ +){3}\S", line), line
    assert any(re.match(r"running +\d+ +\d/2 ", line) for line in live)
    assert any(re.search(r"elapsed, about \d+:\d\d left", line) for line in live)
    assert any("measuring the latency" in line or "testing the finalists" in line for line in lines)
    assert "left in this phase" not in text
