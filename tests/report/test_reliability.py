"""How far finalists can be relied on: intervals, groups, other seeds, and a test split that decides nothing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slimsearch
from slimsearch.evaluators import wilson
from slimsearch.evaluators.datasets import Dataset
from slimsearch.record.trial import COMPLETE, REPEAT, SEARCH, Trial
from slimsearch.report.tables import busy_machine_line
from slimsearch.search_spaces import Candidate
from tests.conftest import TINY, Run, recorded

FAST = ("--dataset", "digits", "--epochs", "2", "--workers", "2", "--trials", "3")


def models_of(directory: Path) -> list[dict[str, Any]]:
    return json.loads((directory / "top_models.json").read_text())  # type: ignore[no-any-return]


def test_finalists_have_intervals_and_name_those_they_cannot_be_told_from(
    finished: tuple[Path, Any], digits: Dataset
) -> None:
    directory, process = finished
    models = models_of(directory)
    front = [model for model in models if model["on_front"]]
    for model in models:
        metrics = model["metrics"]
        assert model["intervals"]["val_accuracy"] == list(wilson(metrics["val_accuracy"], len(digits.validation)))
        low, high = model["intervals"]["test_accuracy"]
        assert low < metrics["test_accuracy"] < high
        assert model["intervals"]["latency_ms"] == [metrics["latency_low_ms"], metrics["latency_high_ms"]]
        assert metrics["parity_error"] < (0.3 if "quantize" in model["recipe"] else 1e-3)
        assert ("cannot_be_told_from" in model) == model["on_front"]
    numbers = {model["trial"] for model in front}
    for model in front:
        for metric, alike in model["cannot_be_told_from"].items():
            assert set(alike) <= numbers - {model["trial"]}
            for other in (m for m in front if m["trial"] in alike):
                assert model["trial"] in other["cannot_be_told_from"][metric], "neither is told from the other"
        for other in front:
            overlap = (
                model["intervals"]["latency_ms"][0] <= other["intervals"]["latency_ms"][1]
                and other["intervals"]["latency_ms"][0] <= model["intervals"]["latency_ms"][1]
            )
            named = other["trial"] in model["cannot_be_told_from"].get("latency_ms", [])
            assert named == (overlap and other is not model)
    several = len(front) > 1
    assert ("best val %: trial " in process.stdout) == several
    assert ("best latency ms: trial " in process.stdout) == several


@pytest.mark.slow
def test_repeats_are_trainings_of_their_own_and_change_no_number(run: Run, tmp_path: Path) -> None:
    words = ("--space", TINY, *FAST, "--compress", "quantize", "--top-k", "1", "--run-dir", "run")
    assert run(*words).returncode == 0
    before = {model["trial"]: model for model in models_of(tmp_path / "run")}
    done = run("--resume", "run", "--repeats", "3")
    assert done.returncode == 0, done.stderr
    after = {model["trial"]: model for model in models_of(tmp_path / "run")}
    assert after.keys() == before.keys()
    trials = recorded(tmp_path / "run")
    repeats = [number for number, trial in trials.items() if trial["kind"] == REPEAT]
    assert all(trials[number]["state"] == "PRUNED" for number in repeats), "none of them on Optuna's front"
    for number, model in after.items():
        for metric in ("val_accuracy", "test_accuracy", "size_kib"):
            assert model["metrics"][metric] == before[number]["metrics"][metric]
        seeds = model["over_seeds"]
        assert seeds["trainings"] == 3
        assert seeds["trials"][0] == number
        assert set(seeds["trials"][1:]) <= set(repeats)
        values = [trials[n]["result"]["metrics"]["val_accuracy"] for n in seeds["trials"]]
        assert seeds["val_accuracy"]["values"] == values
        assert seeds["val_accuracy"]["mean"] == pytest.approx(np.mean(values))
        assert seeds["val_accuracy"]["standard_deviation"] == pytest.approx(np.std(values, ddof=1))
        assert len(seeds["test_accuracy"]["values"]) == 3
        assert f"trial {number} over 3 seeds: " in done.stdout
        again = [trials[n]["params"] for n in seeds["trials"][1:]]
        assert again == [trials[number]["params"]] * 2
    spread = [model["over_seeds"]["val_accuracy"]["standard_deviation"] for model in after.values()]
    assert max(spread) > 0, "the seeds are different ones"
    size = (tmp_path / "run" / "study.journal").stat().st_size
    assert run("--resume", "run").returncode == 0
    assert (tmp_path / "run" / "study.journal").stat().st_size == size


def test_reports_are_made_again_without_space_or_data(finished: tuple[Path, Any], run: Run, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(finished[0], tmp_path / "run"))
    configuration = (directory / "config.yaml").read_text()
    (directory / "config.yaml").write_text(re.sub(r"(?m)^(space|dataset): .*$", r"\1: nowhere", configuration))
    before = {name: (directory / name).read_text() for name in ("top_models.json", "pareto.csv")}
    for name in (*before, "report.html"):
        (directory / name).unlink()
    done = run("run", command="report")
    assert done.returncode == 0, done.stderr
    assert {name: (directory / name).read_text() for name in before} == before
    assert (directory / "report.html").is_file()
    assert "warning" not in done.stdout
    environment = json.loads((directory / "environment.json").read_text())
    environment["packages"]["torch"] = "1.0"
    (directory / "environment.json").write_text(json.dumps(environment))
    assert "warning: the environment has changed: torch was 1.0, is " in run("run", command="report").stdout
    for wrong in ("nowhere", str(tmp_path)):
        done = run(wrong, command="report")
        assert done.returncode == 2
        assert re.fullmatch(r"error: '.*' is not a run directory.*\n", done.stderr)


def test_the_test_split_decides_nothing(digits: Dataset, tmp_path: Path) -> None:
    """With other labels in it, a run is the same run up to its test accuracies, to the last digit."""
    assert digits.test is not None
    train, test = digits.train, digits.test
    found = []
    for name, labels in (("right", test.targets), ("wrong", (test.targets + 1) % 10)):
        data = train.inputs, train.targets, test.inputs, labels
        slimsearch.search(
            TINY, data, trials=4, epochs=2, workers=1, top_k=2, compress="prune:epochs=1,quantize", seed=1,
            objectives="val_accuracy,size_kib,macs", run_dir=tmp_path / name,
        )  # fmt: skip
        found.append((recorded(tmp_path / name), models_of(tmp_path / name)))
    (trials, models), (other_trials, other_models) = found
    measured = ("latency", "start_latency", "training_seconds")
    for one, other in zip(trials.values(), other_trials.values(), strict=True):
        assert (one["params"], one["values"], one["curve"], one["state"]) == (
            other["params"], other["values"], other["curve"], other["state"],
        )  # fmt: skip
        for name, value in one["result"]["metrics"].items():
            if not name.startswith(measured):
                assert other["result"]["metrics"][name] == value
    assert [m["trial"] for m in models] == [m["trial"] for m in other_models]
    assert [m["on_front"] for m in models] == [m["on_front"] for m in other_models]
    assert all(m["metrics"]["test_accuracy"] > 0.5 > n["metrics"]["test_accuracy"]
               for m, n in zip(models, other_models, strict=True))  # fmt: skip
    assert not any("test" in name for t in trials.values() for name in t["result"]["metrics"])


@pytest.mark.slow
def test_predicted_latency_is_compared_with_what_is_measured_at_the_end(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ("--space", TINY, *FAST, "--compress", "quantize", "--top-k", "1", "--run-dir", "run")
    done = run(*words, "--latency", "predicted")
    assert done.returncode == 0, done.stderr
    trials = recorded(tmp_path / "run")
    assert all(t["result"]["metrics"]["latency_predicted"] == 1 for t in trials.values())
    assert all("latency_alone" not in t["result"]["metrics"] for t in trials.values())
    for model in models_of(tmp_path / "run"):
        assert model["metrics"]["latency_blocks"] >= 45, "finalists are measured"
        predicted = trials[model["trial"]]["result"]["metrics"]["latency_ms"]
        assert predicted == pytest.approx(model["metrics"]["latency_ms"], rel=3)
    said = re.search(r"predicted latencies of (\d+) finalists: median error [\d.]+%.*", done.stdout)
    assert said
    assert int(said[1]) == len(models_of(tmp_path / "run"))
    assert said[0].strip() in (tmp_path / "run" / "report.html").read_text()
    done = run(*words[:-1], "other", "--latency", "predicted", "--runtime", "openvino")
    assert done.returncode == 2
    assert "--latency predicted is for --runtime onnxruntime, not openvino" in done.stderr


def test_latencies_measured_on_a_busy_machine_are_named() -> None:
    def finalist(number: int, calm: float) -> Trial:
        final = {"latency_ms": 0.1, "latency_calm": calm}
        return Trial(number, Candidate({"act": number}), SEARCH, COMPLETE, 1, 0, metrics={"latency_ms": 1}, final=final)

    trials = [finalist(number, calm) for number, calm in enumerate((0.0, 1.0, 0.0))]
    assert "trials 0 and 2" in (busy_machine_line(trials) or "")
    assert busy_machine_line(trials[1:2]) is None
