"""The benchmarks that train or score networks: measures by hand, and runs that are small but real."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

import slimsearch
from experiments.benchmarks import _page, latency_repeatability, supernet, zero_cost
from tests.conftest import ROOT


def test_gain_is_that_of_all_draws() -> None:
    rng = np.random.default_rng(0)
    accuracy = rng.random(9)
    for scores in (rng.random(9), accuracy, -accuracy, np.repeat([1.0, 2.0, 3.0], 3), np.zeros(9)):
        for draws in (1, 2, 4):
            chosen = []
            for group in itertools.combinations(range(9), draws):
                best = max(scores[i] for i in group)
                chosen.append(statistics.mean(accuracy[i] for i in group if scores[i] == best))
            assert zero_cost.gain(scores, accuracy, draws) == pytest.approx(statistics.mean(chosen) - accuracy.mean())


def test_correlations() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random(40), np.round(rng.random(40), 1)
    assert zero_cost.spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert zero_cost.kendall(one, other) == pytest.approx(kendalltau(one, other).statistic)
    assert math.isnan(zero_cost.spearman(one, np.ones(40)))
    # What a cost explains alone is nothing beyond it.
    assert math.isnan(zero_cost.partial_spearman(one, 3 * one + 1, [one]))
    cost = rng.random(4000)
    noise = rng.normal(0, 0.3, (2, 4000))
    assert zero_cost.spearman(cost + noise[0], cost + noise[1]) > 0.4
    assert abs(zero_cost.partial_spearman(cost + noise[0], cost + noise[1], [cost])) < 0.1


def test_scores_of_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--networks", "10", "--scores", "params", "naswot", "--json", str(tmp_path / "deep" / "rows.json")]
    assert zero_cost.main(words) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "deep" / "rows.json").read_text())
    assert [row["score"] for row in found["rows"]] == ["params", "naswot"]
    assert found["networks"] == 10
    params = found["rows"][0]
    assert params["beyond_costs"]["value"] is None, "parameters explain themselves"
    space = slimsearch.load_dataset("mnist5k")
    trained = zero_cost.read_table(zero_cost.TABLE, zero_cost.ModelSpace.load("lenet", space.input_shape, 10), 10)
    counts = [
        sum(p.numel() for p in slimsearch.build("lenet", dict(one)).parameters()) for one in trained.architectures
    ]
    assert params["spearman"]["value"] == pytest.approx(spearmanr(counts, trained.accuracy).statistic)
    assert f"{params['spearman']['value']:+.2f}" in printed


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        (zero_cost, ["--networks", "5"], "--networks 5 is less than 10"),
        (zero_cost, ["--draws", "0"], "--draws 0 is less than 1"),
        (zero_cost, ["--scores", "magic"], "magic"),
        (zero_cost, ["--table", "nowhere.csv"], "there is no table 'nowhere.csv'"),
        (supernet, ["--networks", "0"], "--networks 0 is less than 1"),
        (supernet, ["--supernet-epochs", "0"], "--supernet-epochs 0 is less than 1"),
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
    assert "is of a run with other options" in capsys.readouterr().err


def test_the_page_on_latency_has_what_was_measured() -> None:
    results = Path(latency_repeatability.__file__).parent / "results" / "latency_repeatability.json"
    page = (ROOT / "docs" / "latency.md").read_text()
    table = latency_repeatability.table_of(json.loads(results.read_text()))
    assert _page.filled(page, {"repeatability": table}) == page
    found = json.loads(results.read_text())["ways"]["together"]["agreement"]
    assert found["rank_correlation"] >= 0.98
    assert found["median_deviation"] < 0.05
