"""Architecture and recipe searched together: real runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import slimsearch
from slimsearch.evaluators.datasets import Dataset
from tests.conftest import TINY, Run, recorded

RECIPES = """
training:
  learning_rate: [0.005, 0.01]
prune:
  use: [true, false]
  sparsity: [0.3, 0.5]
  epochs: 1
distill:
  use: {values: [true, false], when: {prune.use: true}}
  epochs: 1
quantize:
  use: [true, false]
"""
WORDS = ("--space", TINY, "--dataset", "digits", "--epochs", "3", "--co-search", "recipes.yaml", "--run-dir", "run")


ODD = """
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn


class Odd(ModelSpace):
    def __init__(self):
        super().__init__()
        good = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
        bad = nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.ReLU(), nn.Linear(1, 200), nn.ReLU(), nn.Linear(200, 10))
        self.body = LayerChoice({"good": good, "bad": bad}, label="body")

    def forward(self, x):
        return self.body(x)
"""


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    (tmp_path / "recipes.yaml").write_text(RECIPES)
    return tmp_path / "recipes.yaml"


def test_recipes_are_searched_resumed_and_handed_out(recipes: Path, run: Run, tmp_path: Path, digits: Dataset) -> None:
    done = run(*WORDS, "--trials", "4", "--objectives", "val_accuracy,size_kib,macs", "--workers", "1")
    assert done.returncode == 0, done.stderr
    before = recorded(tmp_path / "run")
    recipes.unlink()  # the run has its content
    done = run("--resume", "run", "--trials", "10")
    assert done.returncode == 0, done.stderr
    after = recorded(tmp_path / "run")
    assert {number: after[number] for number in before} == before
    searched = [trial for trial in after.values() if trial["kind"] == "search"]
    assert sum(trial["parent"] is None for trial in searched) == 10
    assert len({json.dumps(trial["params"], sort_keys=True) for trial in searched}) == len(searched)
    models = json.loads((tmp_path / "run" / "top_models.json").read_text())
    assert any(model["recipe"] for model in models)
    assert digits.test is not None
    for model in models:
        point = after[model["trial"]]["params"]
        assert set(model["architecture"]) <= {"act", "width"}
        assert json.loads(point["training.learning_rate"]) == model["training"]["learning_rate"]
        assert ("prune" in model["recipe"]) == json.loads(point["prune.use"])
        file = tmp_path / "run" / model["artifact"]
        assert slimsearch.accuracy(file, digits, digits.test) == model["metrics"]["test_accuracy"]
        network = slimsearch.load_network(tmp_path / "run", model, space=TINY)
        assert sum(p.numel() for p in network.parameters()) == model["metrics"]["params"]
        slimsearch.build(TINY, model["architecture"], input_shape=(1, 8, 8))


@pytest.mark.slow
def test_a_trained_parent_is_trained_once(recipes: Path, run: Run, tmp_path: Path) -> None:
    """Four recipes on each of six architectures: one of four trains."""
    recipes.write_text("prune:\n  use: [true, false]\n  epochs: 1\nquantize:\n  use: [true, false]\n")
    done = run(*WORDS, "--trials", "24", "--workers", "2", "--sampler", "grid")
    assert done.returncode == 0, done.stderr
    trials = recorded(tmp_path / "run")
    assert len(trials) == 24
    by_architecture: dict[str, list[float]] = {}
    for trial in trials.values():
        architecture = json.dumps([trial["params"][label] for label in ("act", "width") if label in trial["params"]])
        saved = trial["result"]["metrics"]["seconds_saved"]
        by_architecture.setdefault(architecture, []).append(saved)
    assert len(by_architecture) == 6
    for saved in by_architecture.values():
        assert len(saved) == 4
        assert sum(seconds == 0 for seconds in saved) == 1, "one of four recipes trains, the others have its network"
    kept = [json.loads(path.read_text())["depends_on"] for path in (tmp_path / "run" / "kept").glob("*/done.json")]
    assert len({json.dumps(one) for one in kept}) == len(kept) == 6 * 4


def test_recipes_without_training_are_scored_at_once(recipes: Path, run: Run, tmp_path: Path) -> None:
    """Every number format of every trained network, before another network is trained, and not charged."""
    recipes.write_text("prune:\n  use: [true, false]\n  epochs: 1\nquantize:\n  use: [true, false]\n")
    words = (*WORDS, "--trials", "3", "--workers", "1", "--objectives", "val_accuracy,size_kib,macs")
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert "[3/3] trial" in done.stdout
    assert "[4/" not in done.stdout
    trials = recorded(tmp_path / "run")
    searched = {number: trial for number, trial in trials.items() if trial["kind"] == "search"}
    derived = {number: trial for number, trial in searched.items() if trial["parent"] is not None}
    assert len(searched) - len(derived) == 3
    forms: dict[str, set[str]] = {}
    for number, trial in searched.items():
        params = trial["params"]
        forms.setdefault(json.dumps({k: v for k, v in params.items() if k != "quantize.use"}), set()).add(
            params["quantize.use"]
        )
        if number in derived:
            # Nothing else was begun between the trial that trained the network and this one.
            assert all(between in derived for between in range(trial["parent"] + 1, number))
            assert trial["curve"] == {}
            if trial["result"]["state"] == "complete":
                assert trial["result"]["metrics"]["training_seconds"] == 0
                assert trial["result"]["metrics"]["seconds_saved"] > 0
    assert all(found == {"true", "false"} for found in forms.values())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_candidates(recipes: Path, run: Run, tmp_path: Path) -> None:
    words = ("--trials", "4", "--objectives", "val_accuracy,size_kib,macs", "--workers", "1")
    found = []
    for name in ("one", "two"):
        assert run(*WORDS[:-1], name, *words).returncode == 0
        found.append([(t["params"], t["values"]) for t in recorded(tmp_path / name).values()])
    assert found[0] == found[1]


@pytest.mark.slow
def test_size_is_known_before_training(recipes: Path, run: Run, tmp_path: Path) -> None:
    """What breaks a limit is not trained; and the rehearsed file weighs what the trained one does."""
    done = run(*WORDS, "--trials", "4", "--max-params", "700", "--sampler", "random")
    assert done.returncode in (0, 2)
    trials = recorded(tmp_path / "run").values()
    ruled_out = [t for t in trials if t["result"]["state"] == "ruled out"]
    assert ruled_out
    assert all(t["curve"] == {} for t in ruled_out)
    for trial in trials:
        if trial["result"]["state"] == "complete" and trial["kind"] == "search":
            assert trial["result"]["metrics"]["params"] <= 700


def test_training_hyper_parameters_by_themselves(run: Run, tmp_path: Path) -> None:
    words = ("--space", TINY, "--dataset", "digits", "--epochs", "2", "--run-dir", "run", "--compress", "quantize")
    done = run(*words, "--search-hyperparameters", "--trials", "4", "--top-k", "1")
    assert done.returncode == 0, done.stderr
    trials = recorded(tmp_path / "run").values()
    searched = [t for t in trials if t["kind"] == "search"]
    assert all({"training.learning_rate", "training.warm_up"} <= t["params"].keys() for t in searched)
    compressed = [t for t in trials if t["kind"] == "compression"]
    assert len(compressed) == 1
    assert "training.learning_rate" in compressed[0]["params"]


@pytest.mark.slow
def test_unpromising_trainings_end_early(recipes: Path, run: Run, tmp_path: Path) -> None:
    """Rungs are in the training of the uncompressed network; a paused candidate whose network is trained goes on."""
    recipes.write_text(
        "training:\n  learning_rate: [0.002, 0.005, 0.01, 0.02]\n"
        "prune:\n  use: [true, false]\n  epochs: 2\nquantize:\n  use: [true, false]\n"
    )
    words = ("--trials", "8", "--workers", "1", "--sampler", "random", "--scheduler", "asha")
    done = run(*WORDS, *words, "--objectives", "val_accuracy,size_kib,macs")
    assert done.returncode == 0, done.stderr
    searched = [trial for trial in recorded(tmp_path / "run").values() if trial["kind"] == "search"]
    stopped = [trial for trial in searched if trial["result"]["state"] == "stopped early"]
    complete = [trial for trial in searched if trial["result"]["state"] == "complete"]
    assert stopped
    assert all(max(map(int, trial["curve"])) < 3 for trial in stopped)

    def network(trial: dict[str, Any]) -> tuple[str | None, ...]:
        return tuple(trial["params"].get(label) for label in ("act", "width", "training.learning_rate"))

    assert not {network(trial) for trial in stopped} & {network(trial) for trial in complete}
    for trial in complete:  # 3 epochs of training and 2 of pruning, by this trial or another one
        epochs = sorted(map(int, trial["curve"]))
        pruned = json.loads(trial["params"]["prune.use"])
        assert epochs in ([], [1, 2, 3, 4, 5], [4, 5]) if pruned else epochs in ([], [1, 2, 3])
    before = recorded(tmp_path / "run")
    assert run("--resume", "run").returncode == 0
    assert recorded(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        ("prun:\n  use: [true, false]\n", (), "unknown stage 'prun'"),
        ("prune:\n  sparsty: [0.1, 0.2]\n", (), "stage 'prune' has no option 'sparsty'"),
        ("prune:\n  sparsity: [0.1, 2]\n", (), "sparsity 2 is not between 0 and 1"),
        ("training:\n  rate: [0.1, 2]\n", (), "training has no 'rate' to search; it has learning_rate"),
        ("training:\n  learning_rate: [0.1, -2]\n", (), "learning_rate -2 is not above 0"),
        ("training:\n  augmentation: [none, blur]\n", (), "augmentation 'blur' is none of auto, none"),
        ("training:\n  augmentation: [none, cutout+mask]\n", (), "augmentation 'mask' is for signals"),
        ("prune:\n  sparsity: 0.5\n", (), "leaves nothing to choose"),
        ("distill:\n  teacher: [parent, best]\n", (), "teacher: parent is the candidate's own"),
        (RECIPES, ("--scheduler", "hyperband"), "use asha, median or dominated"),
        (RECIPES, ("--scheduler", "pbt+dominated", "--search-hyperparameters"), "cannot be combined"),
        (RECIPES, ("--scheduler", "pbt", "--search-hyperparameters"), "use asha, median or dominated"),
        (RECIPES, ("--strategy", "supernet"), "--strategy supernet searches architectures alone"),
        (RECIPES, ("--strategy", "nni-random"), "--strategy nni_random searches architectures alone"),
    ],
)
def test_mistakes_are_one_line(
    content: str, words: tuple[str, ...], said: str, recipes: Path, run: Run, tmp_path: Path
) -> None:
    recipes.write_text(content)
    done = run(*WORDS, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_report_shows_each_step_of_a_finalist(recipes: Path, run: Run, tmp_path: Path) -> None:
    """From the trained network through each stage, every file scored, nothing trained again."""
    recipes.write_text("prune:\n  sparsity: [0.3, 0.5]\n  epochs: 1\nquantize:\n  use: [true, false]\n")
    done = run(*WORDS, "--trials", "4", "--workers", "2")
    assert done.returncode == 0, done.stderr
    trials = recorded(tmp_path / "run")
    steps = {number: trial for number, trial in trials.items() if trial["kind"] == "step"}
    assert steps
    assert all(trial["state"] == "PRUNED" and not trial["curve"] for trial in steps.values())
    models = json.loads((tmp_path / "run" / "top_models.json").read_text())
    for model in models:
        path = model["lineage"]
        assert [stage for step in path for stage in step["stages"]] == list(model["recipe"])
        assert path[0]["stages"] == {}
        assert path[-1]["trial"] == model["trial"]
        assert all({"val_accuracy", "latency_ms", "size_kib", "params"} <= set(step["metrics"]) for step in path)
        assert path[0]["metrics"]["params"] > path[1]["metrics"]["params"]
        assert path[0]["seconds"] > 0
    assert set(steps).isdisjoint(model["trial"] for model in models)
    page = (tmp_path / "run" / "report.html").read_text()
    data = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.S).group(1))
    assert {one["trial"]: [step["trial"] for step in one["path"]] for one in data["finalists"]} == {
        model["trial"]: [step["trial"] for step in model["lineage"]] for model in models
    }
    before = recorded(tmp_path / "run")
    assert run("--resume", "run").returncode == 0
    assert recorded(tmp_path / "run") == before


def test_what_is_dominated_whatever_it_learns_is_not_trained(recipes: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    recipes.write_text("level:\n  use: [true, false]\n  sparsity: [0.5, 0.6]\n  epochs: 1\n")
    words = ("--objectives", "val_accuracy,size_kib,macs", "--sampler", "grid", "--workers", "1", "--trials", "6")
    done = run("--space", "odd.py:Odd", *WORDS[2:], *words)
    assert done.returncode == 0, done.stderr
    trials = [trial for trial in recorded(tmp_path / "run").values() if trial["kind"] == "search"]
    ruled_out = [trial for trial in trials if trial["result"]["state"] == "ruled out"]
    assert [json.loads(trial["params"]["body"]) for trial in ruled_out] == ["bad", "bad"]
    assert all("its architecture has had" in trial["result"]["reason"] for trial in ruled_out)
    assert "2 of 6 candidates (33%) ruled out before training" in done.stdout
