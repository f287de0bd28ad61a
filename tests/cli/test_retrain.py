"""Networks that were found, trained again for longer in a run of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slimsearch import compression
from slimsearch.errors import SlimsearchError
from slimsearch.options.chosen import retraining
from slimsearch.options.configuration import Configuration
from tests.conftest import DEFINED, TINY, Run, recorded

WORDS = ("--space", TINY, "--dataset", "digits", "--epochs", "2", "--compress", "quantize")


@pytest.mark.slow
def test_the_front_of_a_run_is_trained_for_longer(run: Run, tmp_path: Path) -> None:
    assert run(*WORDS, "--trials", "4", "--batch-size", "32", "--run-dir", "found").returncode == 0
    models = json.loads((tmp_path / "found" / "top_models.json").read_text())
    done = run("found", "--run-dir", "again", command="retrain")
    assert done.returncode == 0, done.stderr
    (tmp_path / "found" / "top_models.json").unlink()  # the new run has what it needs
    trials = recorded(tmp_path / "again")
    searched = [t for t in trials.values() if t["kind"] == "search"]
    on_front = {json.dumps(model["architecture"], sort_keys=True) for model in models if model["on_front"]}
    again = json.loads((tmp_path / "again" / "top_models.json").read_text())
    assert len(searched) == len(on_front)
    assert {json.dumps(model["architecture"], sort_keys=True) for model in again} <= on_front
    assert all(len(t["curve"]) == 8 for t in searched)
    assert {t["kind"] for t in trials.values()} == {"search", "compression"}
    text = (tmp_path / "again" / "config.yaml").read_text()
    assert "batch_size: 32\n" in text
    assert "compress: quantize\n" in text
    done = run("--resume", "again")
    assert done.returncode == 0, done.stderr
    assert recorded(tmp_path / "again") == trials


def test_models_by_number_files_and_dicts(run: Run, tmp_path: Path) -> None:
    assert run(*WORDS, "--trials", "2", "--run-dir", "found").returncode == 0
    first = recorded(tmp_path / "found")[0]
    words = ("--compress", "none", "--epochs", "1", "--training-threads", "2", "--run-dir")
    done = run("found/top_models.json", "--models", "0", *words, "one", command="retrain")
    assert done.returncode == 0, done.stderr
    (only,) = recorded(tmp_path / "one").values()
    assert only["params"] == first["params"]
    assert json.loads((tmp_path / "one" / "environment.json").read_text())["threads_per_worker"] == 2
    architecture = {label: json.loads(value) for label, value in first["params"].items()}
    (tmp_path / "mine.yaml").write_text(json.dumps(architecture))
    for number, found in enumerate(("mine.yaml", json.dumps([architecture]))):
        done = run(found, *WORDS[:4], *words, f"two{number}", command="retrain")
        assert done.returncode == 0, done.stderr
        (only,) = recorded(tmp_path / f"two{number}").values()
        assert only["params"] == first["params"]


@pytest.mark.parametrize(
    ("found", "words", "message"),
    [
        ("nothing.json", (), "nothing.json"),
        ("odd.yaml", (), "odd.yaml"),
        ("[]", (), "architectures"),
        ('{"act": "selu"}', ("--space", TINY, "--dataset", "digits"), "selu"),
        ('{"act": "relu"}', (), "--space"),
        ("[{", (), "[{"),
        ("models.json", ("--models", "7"), "--models 7"),
        ("models.json", ("--models", "x"), "--models 'x'"),
        ("models.json", ("--resume", "x"), "--resume"),
    ],
)
def test_mistakes_are_one_line(found: str, words: tuple[str, ...], message: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("just text")
    (tmp_path / "models.json").write_text('[{"trial": 3, "on_front": true, "architecture": {}, "recipe": {}}]')
    done = run(found, *words, "--run-dir", "again", command="retrain")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "again").exists()


def test_a_function_of_a_trial_is_trained_again_with_the_hyperparameters_it_was_found_with(
    run: Run, tmp_path: Path
) -> None:
    words = ("--space", f"{DEFINED}:with_training", "--dataset", "digits", "--epochs", "1", "--compress", "none")
    assert run(*words, "--trials", "2", "--run-dir", "found").returncode == 0
    model = json.loads((tmp_path / "found" / "top_models.json").read_text())[0]
    done = run("found", "--models", model["trial"], "--run-dir", "again", command="retrain")
    assert done.returncode == 0, done.stderr
    (again,) = json.loads((tmp_path / "again" / "top_models.json").read_text())
    assert again["architecture"] == model["architecture"]
    chosen = Configuration.read(tmp_path / "again" / "config.yaml")
    assert model["training"] == {
        "learning_rate": chosen.learning_rate, "batch_size": chosen.batch_size, "augmentation": chosen.augment
    }  # fmt: skip
    done = run("again", "--to", "files", command="export")
    assert done.returncode == 0, done.stderr


def test_all_searched_hyperparameters_are_taken_over(tmp_path: Path) -> None:
    Configuration(space=TINY, search_hyperparameters=True).write(tmp_path / "config.yaml")
    training = {"learning_rate": 0.01, "warm_up": 0.4, "weight_decay": 0.05, "augmentation": "none", "batch_size": 32}
    models = [
        {"trial": 0, "on_front": True, "architecture": {"act": 0, "width": 8}, "recipe": {}, "training": training}
    ]
    (tmp_path / "top_models.json").write_text(json.dumps(models))
    found = retraining(str(tmp_path), [], {})
    assert {name: getattr(found, {"augmentation": "augment"}.get(name, name)) for name in training} == training


def test_networks_are_trained_and_scored_as_they_were(tmp_path: Path) -> None:
    same = {
        "fit": "/mine.py:fit", "score": "/mine.py:score", "mean": "0.5", "std": "0.25", "prefer": "small",
        "target": "cortex-m4", "batch_size": 32, "max_drop": 2.0,
    }  # fmt: skip
    Configuration(space=TINY, scheduler="asha", patience=3, seed=5, **same).write(tmp_path / "config.yaml")
    models = [{"trial": 0, "on_front": True, "architecture": {"act": 0, "width": 8}, "recipe": {}}]
    (tmp_path / "top_models.json").write_text(json.dumps(models))
    found = retraining(str(tmp_path), [], {})
    assert {name: getattr(found, name) for name in same} == same
    assert (found.scheduler, found.patience, found.seed) == ("none", None, 0)


def test_what_was_found_with_a_recipe_is_compressed_by_it(tmp_path: Path) -> None:
    Configuration(space=TINY, co_search="default", max_latency_ms=0.1, epochs=2).write(tmp_path / "config.yaml")
    recipes = ({"quantize": {"keep_float": "ends"}}, {"prune": {"sparsity": 0.5}, "quantize": {}})
    models = [
        {"trial": n, "on_front": True, "architecture": {"act": 0, "width": w}, "recipe": recipe}
        for n, (w, recipe) in enumerate(((8, recipes[0]), (16, recipes[1]), (24, recipes[1])))
    ]
    (tmp_path / "top_models.json").write_text(json.dumps(models))
    found = retraining(str(tmp_path), [1, 2], {})
    assert compression.Recipe.parse(found.compress).to_dict() == recipes[1]
    assert (found.co_search, found.max_latency_ms, found.epochs) == (None, None, 8)
    with pytest.raises(SlimsearchError, match="these models have different recipes"):
        retraining(str(tmp_path), [], {})
    assert retraining(str(tmp_path), [], {"compress": "none"}).compress == "none"
