"""The benchmark of the headline table, in small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import _co_search, headline, training_defaults, training_path
from experiments.benchmarks._co_search import Half
from experiments.benchmarks._command_runs import CommandRun
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective
from slimsearch.search_spaces import ChoiceSpace, JointSpace, RecipeSpace
from slimsearch.strategies.samplers import History, Observation
from tests.conftest import TINY

OBJECTIVES = (Objective("val_accuracy", "maximize"), Objective("size_kib", "minimize"))
SPACE = JointSpace(
    ChoiceSpace({"width": [1, 2, 3, 4], "kind": ["a", "b"]}),
    RecipeSpace({"prune": {"use": [True, False], "sparsity": [0.25, 0.5]}, "quantize": {"use": [True, False]}}),
)


def test_search_first_and_compression_then(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    now = 100.0
    monkeypatch.setattr(_co_search.time, "monotonic", lambda: now)
    monkeypatch.setenv(_co_search.BUDGET, "60")
    sampler, history = Half(), History()
    for _ in range(6):
        point = sampler.propose(SPACE, OBJECTIVES, history, rng)
        assert SPACE.candidate(point).recipe == {}
        assert not history.tried(point)
        # A wider network is larger and better; kind "b" is worse in everything.
        worse = 10.0 * (point["kind"] == "b")
        losses = (-float(point["width"]) + worse, float(point["width"]) + worse)
        history.add(Observation(point, losses))
    best = {o.point["width"] for o in history.observations if o.point["kind"] == "a"}
    now = 131.0
    for _ in range(12):
        point = sampler.propose(SPACE, OBJECTIVES, history, rng)
        assert point["kind"] == "a"
        assert point["width"] in best
        history.add(Observation(point, (0.0, 9.0)))
    assert any(o.point.get("prune.use") for o in history.observations)


@pytest.mark.slow
def test_runs_are_timed_and_gone_on_with(tmp_path: Path) -> None:
    words = ("run", "--space", TINY, "--dataset", "digits", "--epochs", 1, "--trials", 2, "--compress", "none")
    run = CommandRun(tmp_path / "deep" / "run", *words).begin().wait()
    assert run.done
    assert run.seconds > 1
    assert run.file(run.models[0]).is_file()
    before = (tmp_path / "deep" / "run" / "study.journal").read_bytes()
    again = CommandRun(tmp_path / "deep" / "run", *words).begin().wait()
    assert again.seconds == run.seconds
    assert (tmp_path / "deep" / "run" / "study.journal").read_bytes() == before
    with pytest.raises(SlimsearchError, match=r"exit code 2: .*--trials 0"):
        CommandRun(tmp_path / "wrong", "run", "--space", TINY, "--trials", 0).begin().wait()


def test_tricks_leave_out_what_exists() -> None:
    left_out = [variant.without for trick in training_path.tricks(1) for variant in (trick.without, trick.by)]
    found = [getattr(*without) for without in left_out if without is not None]
    assert len(found) >= 5
    assert all(map(callable, found))


@pytest.mark.slow
def test_a_trick_is_compared(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.md").write_text("<!-- table: tricks -->\n<!-- end -->\n")
    words = ["--networks", "1", "--only", "one kernel", "--json", f"{tmp_path}/t.json", "--page", f"{tmp_path}/page.md"]
    assert training_path.main(words) == 0
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert [row["space"] for row in rows] == ["mnist_cnn", "lenet", "tiny_cnn"]
    assert all(0.2 < row["times_faster"] < 5 for row in rows)
    assert (tmp_path / "page.md").read_text().count("optimizer's step in one kernel") == 3


@pytest.mark.slow
def test_a_changed_default_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_defaults, "SPACES", {"mlp": training_defaults.SPACES["mlp"]})
    changes = [training_defaults.DEFAULT, "label smoothing 0.1"]
    monkeypatch.setattr(training_defaults, "CHANGES", {name: training_defaults.CHANGES[name] for name in changes})
    (tmp_path / "page.md").write_text("<!-- table: defaults -->\n<!-- end -->\n")
    words = ["--mnist", f"{tmp_path}", "--cifar10", f"{tmp_path}", "--json", f"{tmp_path}/t.json"]
    assert training_defaults.main([*words, "--networks", "1"]) == 0
    first = json.loads((tmp_path / "t.json").read_text())
    assert sorted(row["change"] for row in first) == changes
    assert training_defaults.main([*words, "--networks", "2", "--page", f"{tmp_path}/page.md"]) == 0
    rows = json.loads((tmp_path / "t.json").read_text())
    assert rows[:2] == first  # not trained again
    assert len(rows) == 4
    assert (tmp_path / "page.md").read_text().count("\n| ") == 4


def test_rows_are_kept_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "first-seconds": {"epoch_seconds": [9, 11, 10], "trial_seconds": [20], "command": f"{tmp_path}/out/one"},
        "mnist-1000": {
            "test_accuracies": [0.985], "seconds": {"search": 60, "long": 120},
            "metrics": {"params": 999, "size_kib": 7.5, "latency_ms": 0.012},
        },
    }  # fmt: skip
    monkeypatch.setattr(headline, "ROWS", {name: lambda options, row=row: row for name, row in rows.items()})
    (tmp_path / "page.md").write_text("before\n<!-- table: headline -->\n<!-- end -->\nafter\n")
    for row in rows:
        words = [row, "--out", f"{tmp_path}/out", "--json", f"{tmp_path}/h.json", "--page", f"{tmp_path}/page.md"]
        assert headline.main(words) == 0
    kept = json.loads((tmp_path / "h.json").read_text())["rows"]
    for row in kept.values():
        assert row.pop("processor")
        del row["processor_flags"]
    assert kept == {**rows, "first-seconds": {**rows["first-seconds"], "command": "runs/headline/one"}}
    page = (tmp_path / "page.md").read_text()
    assert "| 10.0 (9.0 to 11.0) s to the first epoch, 20.0 s to the first trial |" in page
    assert "| 98.50 %, 999 parameters, 7.5 KiB, 0.012 ms; 3 minutes |" in page
    assert page.startswith("before\n")
    assert page.endswith("after\n")


def test_what_is_on_the_front_beside_lenet_is_shown_where_there_is_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = {"test_accuracy": 0.99, "params": 2254, "size_kib": 14.0, "latency_ms": 0.045}
    row = {
        "test_accuracies": [0.99], "seconds": {"search": 60}, "metrics": metrics,
        "others": [{**metrics, "params": 1870}], "lenet": {**metrics, "test_accuracy": 0.97, "params": 2421},
    }  # fmt: skip
    monkeypatch.setattr(headline, "ROWS", {"mnist-2421": lambda options: row})
    (tmp_path / "page.md").write_text(
        "<!-- table: headline -->\n<!-- end -->\n<!-- table: mnist_2421 -->\n<!-- end -->\n"
    )
    assert headline.main(["mnist-2421", "--out", f"{tmp_path}/out", "--page", f"{tmp_path}/page.md"]) == 0
    page = (tmp_path / "page.md").read_text()
    assert "| LeNet, pruned | 97.00 | 2,421 | 14.0 | 0.0450 |" in page
    assert "| one of the six, 8 epochs | 99.00 | 1,870 |" in page


@pytest.mark.parametrize("row", ["hello-nas", "mnist-2421", "mnist-697"])
def test_what_is_missing_is_one_line(row: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert headline.main([row]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert row in line
    assert "--mnist" in line


@pytest.mark.slow
@pytest.mark.parametrize("row", headline.ROWS)
def test_rows_are_tried_quickly(row: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert headline.main([row, "--quick", "--out", str(tmp_path)]) == 0
    printed = capfd.readouterr().out
    assert json.loads(printed[printed.index("{\n") :])
    assert headline.main([row, "--quick", "--json", str(tmp_path / "kept.json")]) == 2
