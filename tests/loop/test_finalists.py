"""The front of a run: it consists of finalists, and every report shows the same one."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slimsearch
from slimsearch.evaluators import Limit, Objective, Outcome
from slimsearch.evaluators.datasets import Dataset
from slimsearch.loop.finalists import FinalMeasurement
from slimsearch.loop.problem import Problem
from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import SEARCH
from slimsearch.report.display import Silent
from slimsearch.report.report_files import write_reports
from slimsearch.report.stored_run import list_runs
from slimsearch.search_spaces import ModelSpace
from tests.conftest import TINY, Run

OBJECTIVES = (Objective("val_accuracy", "maximize"), Objective("latency_ms", "minimize"))


def fronts(run: Path) -> dict[str, list[int]]:
    """The front of a run in each of its reports."""
    page = re.search(r'<script id="data"[^>]*>(.*?)</script>', (run / "report.html").read_text(), re.S)
    assert page is not None
    data = json.loads(page[1])
    (entry,) = (entry for entry in list_runs(run.parent) if Path(entry["run"]) == run)
    found = {
        "top_models.json": [m["trial"] for m in json.loads((run / "top_models.json").read_text()) if m["on_front"]],
        "pareto.csv": [int(row["trial"]) for row in csv.DictReader((run / "pareto.csv").open())],
        "report.html": [t["number"] for t in data["trials"] if t["on_front"]],
    }
    assert entry["on_front"] == data["front"] == len(found["report.html"])
    return {name: sorted(numbers) for name, numbers in found.items()}


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(
    ("recorded", "limits"),
    [
        # The first one dominates all others with the recorded latencies alone; the others follow one after the other.
        ([1e-6, 2e-6, 3e-6, 4e-6], ()),
        ([1e-6, 1e-5, 1e-5, 1e-5], ()),
        # With the latency measured together, the first one breaks the limit.
        ([1e-6, 2e-6, 3e-6, 4e-6], (Limit("latency_ms", 1e-5, True, "--max-latency-ms"),)),
    ],
)
def test_what_the_final_latencies_bring_to_the_front_is_measured_too(
    tmp_path: Path, digits: Dataset, recorded: Sequence[float], limits: tuple[Limit, ...]
) -> None:
    space = ModelSpace.load(TINY, (1, 8, 8), 10)
    ranking = Ranking(OBJECTIVES, limits)
    with RunDirectory(tmp_path / "run", create=True) as directory:
        Configuration(space=TINY, objectives="val_accuracy,latency_ms").write(directory.config)
        environment = {
            "packages": {}, "device": "cpu", "precision": "fp32", "choices": {}, "dataset": {"name": "digits"},
        }  # fmt: skip
        (directory.path / "environment.json").write_text(json.dumps(environment))
        record = Record(directory.open_study(OBJECTIVES), space, OBJECTIVES)
        for point, latency in zip(space.grid(), recorded, strict=False):
            trial = record.start(space.candidate(point), kind=SEARCH, fidelity=1, seed=0)
            slimsearch.export(space.build(point), directory.trial_directory(trial.number) / "model.onnx", digits)
            metrics = {"val_accuracy": 0.9 - trial.number / 10, "latency_ms": latency, "size_kib": 1.0}
            record.finish(trial.number, Outcome(metrics, {"model": "model.onnx"}))
        assert [t.number for t in ranking.front(record.trials)] == [0]
        problem = Problem(space, lambda directory: pytest.fail("nothing is trained"), None, (), digits)
        FinalMeasurement(ranking, 0, problem, record, directory, Silent(), None).finish()
        write_reports(directory, record, ranking, Configuration.read(directory.config), environment)
        every = [t.with_final_metrics() for t in record.trials]
        front = sorted(t.number for t in ranking.front(every))
        assert set(front) <= record.finalists
        assert all("test_accuracy" in every[number].metrics for number in front)
        assert len(record.finalists) == len(recorded)
    if not limits:  # which are options of the run
        assert set(map(tuple, fronts(tmp_path / "run").values())) == {tuple(front)}


@settings(max_examples=30, deadline=None)
@given(
    measured=st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=6),
    top_k=st.integers(0, 2),
    weighted=st.booleans(),
)
def test_the_best_in_each_objective_is_a_finalist(
    tmp_path_factory: pytest.TempPathFactory, measured: list[tuple[int, int, int]], top_k: int, weighted: bool
) -> None:
    space = ModelSpace.load(TINY, (1, 8, 8), 10)
    objectives = (*OBJECTIVES, Objective("size_kib", "minimize"))
    ranking = Ranking(objectives, (Limit("size_kib", 2, True, "--max-size-kib"),), weighted=weighted)
    with RunDirectory(tmp_path_factory.mktemp("run") / "run", create=True) as directory:
        record = Record(directory.open_study(objectives), space, objectives)
        for point, values in zip(space.grid(), measured, strict=False):
            trial = record.start(space.candidate(point), kind=SEARCH, fidelity=1, seed=0)
            metrics = {one.metric: float(value) for one, value in zip(objectives, values, strict=True)}
            record.finish(trial.number, Outcome(metrics, {}))
        problem = Problem(space, lambda directory: pytest.fail("nothing is trained"), None, (), None)
        found = FinalMeasurement(ranking, top_k, problem, record, directory, Silent(), None).finalists()
        feasible = ranking.feasible(record.trials)
    for one in objectives if feasible else ():
        best = min(one.loss(trial.metrics) for trial in feasible)
        assert best == min(one.loss(trial.metrics) for trial in ranking.feasible(found))


def marked(output: str) -> list[int]:
    """The trials that the table on the terminal marks with an asterisk."""
    return sorted(int(number) for number in re.findall(r"^│ \* *│ +(\d+) │", output, re.M))


def test_all_reports_have_one_front(run: Run, tmp_path: Path) -> None:
    words: list[Any] = ["--space", TINY, "--dataset", "digits", "--epochs", "1", "--workers", "1", "--compress", "none"]
    done = run(*words, "--trials", "4", "--top-k", 0, "--repeats", "2", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    found = fronts(tmp_path / "run")
    assert set(map(tuple, found.values())) == {tuple(marked(done.stdout))}
    models = json.loads((tmp_path / "run" / "top_models.json").read_text())
    assert all(model["over_seeds"]["trainings"] == 2 for model in models), "later finalists are repeated too"
    done = run("--resume", tmp_path / "run", "--trials", "6")
    assert done.returncode == 0, done.stderr
    assert set(map(tuple, fronts(tmp_path / "run").values())) == {tuple(marked(done.stdout))}
