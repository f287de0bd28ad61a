"""Runs whose networks a user's functions train and score: search, compression, resume, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import slimsearch
from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import Configuration
from tests.conftest import Run

IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = (IMAGES.reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32)
TRAIN, VALIDATION = slice(0, 1200), slice(1200, 1500)
SMALL: dict[str, Any] = {"trials": 2, "top_k": 1, "epochs": 2, "workers": 1, "show": False, "seed": 1}


def define(trial: Any) -> nn.Module:
    width = trial.suggest_int("width", 16, 32, step=16)
    body = nn.Conv2d(1, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(width * 4, 10))


def fit(model: nn.Module, epochs: int, report: Any) -> None:
    loader = DataLoader(
        TensorDataset(torch.from_numpy(IMAGES[TRAIN]), torch.from_numpy(LABELS[TRAIN])), batch_size=64, shuffle=True
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(1, epochs + 1):
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
        if not report(epoch, {"train_loss": loss.item()}):
            return


def fit_with(model: nn.Module, epochs: int, report: Any, weight_decay: float, warm_up: float) -> None:
    assert (weight_decay, warm_up) == (0.1, 0.5)
    fit(model, epochs, report)


def right(predict: Any) -> Any:
    return predict(IMAGES[VALIDATION]).argmax(axis=1) == LABELS[VALIDATION]


def score(predict: Any, split: str) -> dict[str, float]:
    chosen = VALIDATION if split == "validation" else slice(1500, None)
    found = predict(IMAGES[chosen])
    shares = np.exp(found) / np.exp(found).sum(axis=1, keepdims=True)
    return {
        "hits": float((found.argmax(axis=1) == LABELS[chosen]).mean()),
        "doubt:min": 1 - float(shares.max(axis=1).mean()),
    }


def test_search_compression_and_resume(tmp_path: Path) -> None:
    options = {**SMALL, "compress": "prune:sparsity=0.3,quantize"}
    found = slimsearch.search(define, IMAGES[:256], fit=fit, score=score, run_dir=tmp_path / "run", **options)
    models = found.top_models(10)
    assert {tuple(model["recipe"]) for model in models} >= {(), ("prune",)}
    for model in models:
        metrics = model["metrics"]
        assert metrics["val_hits"] > 0.8
        assert metrics["test_hits"] > 0.7
        assert metrics["network_hits"] == pytest.approx(metrics["val_hits"], abs=0.05)
        assert 0 < metrics["val_doubt"] < 1
        assert metrics["latency_ms"] > 0
        file = slimsearch.api.Path(model["artifact"])
        assert file.is_file() or (tmp_path / "run" / file).is_file()
    trial = found.trials[0]
    assert [set(point) >= {"train_loss"} for point in trial.curve if "train_loss" in point] == [True, True]
    again = slimsearch.resume(
        tmp_path / "run", space=define, dataset=IMAGES[:256], fit=fit, score=score, trials=3, show=False
    )
    assert again.trials[0].metrics == trial.metrics
    with pytest.raises(SlimsearchError, match=r"fit=\.\.\."):
        slimsearch.resume(tmp_path / "run", space=define, dataset=IMAGES[:256], score=score, show=False)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["ray", "database"])
def test_on_ray_and_with_a_study_in_a_database(where: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL, "compress": "prune:sparsity=0.3,quantize"}
    if where == "ray":
        options["strategy"] = "ray"
    else:
        options |= {"storage": f"sqlite:///{tmp_path}/study.db", "study": "own"}
    functions: dict[str, Any] = {"fit": fit, "score": score}
    found = slimsearch.search(define, IMAGES[:256], **functions, run_dir=tmp_path / "run", **options)
    assert any("prune" in model["recipe"] for model in found.top_models(10))
    assert min(model["metrics"]["val_hits"] for model in found.top_models(10)) > 0.8
    again = slimsearch.resume(
        tmp_path / "run", space=define, dataset=IMAGES[:256], **functions, trials=3, show=False
    )  # fmt: skip
    assert again.trials[0].metrics == found.trials[0].metrics
    if where == "database":
        second = slimsearch.search(
            define, IMAGES[:256], **functions, run_dir=tmp_path / "second", **{**options, "trials": 3}
        )  # fmt: skip
        assert second.trials[0].metrics == found.trials[0].metrics
        assert all((tmp_path / "second" / model["artifact"]).is_file() for model in second.top_models(3))


@pytest.mark.slow
def test_scores_of_examples_with_co_search(tmp_path: Path) -> None:
    found = slimsearch.search(
        define, IMAGES[:256], fit=fit, score=right, run_dir=tmp_path / "run", **{**SMALL, "co_search": "default"}
    )
    assert any("prune" in trial.candidate.recipe or "quantize" in trial.candidate.recipe for trial in found.trials)
    assert all(trial.metrics["val_images"] == 300 for trial in found.trials if trial.state == "complete")


def test_a_trained_network_is_compressed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    fit(network, 3, lambda *_: True)
    small = slimsearch.compress(
        network, "prune:sparsity=0.5,quantize", IMAGES[:256], fit=fit_with, score=right, epochs=2, seed=0, show=False,
        run_dir=tmp_path / "run", weight_decay=0.1, warm_up=0.5,
    )  # fmt: skip
    written = Configuration.read(tmp_path / "run" / "config.yaml")
    assert (written.weight_decay, written.warm_up) == (0.1, 0.5)
    assert small.network.params < 4000
    assert "val_score" in small.after
    assert small.after["val_score"] > 0.8


def whole(predict: Any, split: str) -> dict[str, float]:
    return {"accuracy": float(right(predict).mean()) if split == "validation" else 0.5}


def percent(predict: Any) -> dict[str, Any]:
    return {"margin": float(np.ptp(predict(IMAGES[:9]))), "accuracy": 100 * float(right(predict).mean())}


def of_examples(predict: Any) -> dict[str, Any]:
    return {"margin": np.ptp(predict(IMAGES[VALIDATION]), axis=1), "accuracy": 100 * right(predict)}


@pytest.mark.parametrize("own", [whole, percent, of_examples])
def test_an_accuracy_of_ones_own_has_no_interval_of_a_share(own: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    fit(network, 2, lambda *_: True)
    slimsearch.compress(network, "quantize", IMAGES[:256], fit=fit, score=own, show=False, run_dir=tmp_path / "run")
    models = json.loads((tmp_path / "run" / "top_models.json").read_text())
    assert len(models) == 2
    for model in models:
        low, high = model["intervals"].get("val_accuracy", (None, None))
        assert (low is None) == (own is not of_examples)
        assert low is None or 50 < low < model["metrics"]["val_accuracy"] < high
        assert ("test_accuracy" in model["metrics"]) == (own is whole)
        assert "test_images" not in model["metrics"]
        assert "test_accuracy" not in model["intervals"]


def test_the_metrics_of_a_data_set_and_training_of_ones_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        """
import torch
from torch import nn

def define(trial):
    width = trial.suggest_int("width", 16, 32, step=16)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

def fit(model, epochs, data, learning_rate):
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for _ in range(epochs):
        for inputs, labels in data.batches(data.train, 64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), torch.from_numpy(labels)).backward()
            optimizer.step()
"""
    )
    words = ["--space", "mine.py:define", "--dataset", "digits", "--fit", "mine.py:fit", "--run-dir", "run"]
    done = run(
        *words, "--trials", "2", "--epochs", "3", "--top-k", "1", "--compress", "prune:importance=taylor,quantize"
    )
    assert done.returncode == 0, done.stderr
    assert "val %" in done.stdout
    again = run("--resume", "run")
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_inputs_in_a_file_and_functions_in_another(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", IMAGES[:256])
    words = ["--space", f"{__file__}:define", "--fit", f"{__file__}:fit", "--score", f"{__file__}:score"]
    small = ["--trials", "1", "--epochs", "1", "--compress", "quantize", "--top-k", "1"]
    done = run(*words, *small, "--dataset", "inputs.npy", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    assert "val_hits" in done.stdout
    assert run("--resume", "run").returncode == 0
    refused = run("--space", f"{__file__}:define", "--dataset", "inputs.npy")
    assert refused.returncode == 2
    assert "inputs without targets" in refused.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": score}, "give fit too"),
        ({}, "inputs without targets"),
        ({"fit": fit}, "fit is given and score is not"),
        ({"fit": fit, "score": score, "lightning": fit}, "leave out one of them"),
        ({"fit": fit, "score": score, "compress": "prune,distill"}, "stage 'prune.*distill' .*needs the loss"),
        ({"fit": fit, "score": score, "compress": "prune:schedule=agp"}, "stage 'prune' .*needs the loss"),
        ({"fit": fit, "score": score, "strategy": "supernet"}, "trains a supernet"),
        ({"fit": fit, "score": score, "search_hyperparameters": True}, "let define"),
        ({"fit": fit, "score": lambda predict: "much"}, "score returned str"),
    ],
)
def test_what_does_not_work_is_said_before_the_search(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SlimsearchError, match=message):
        slimsearch.search(define, IMAGES[:64], run_dir=tmp_path / "run", **{**SMALL, **options})
    assert not (tmp_path / "run").exists()
