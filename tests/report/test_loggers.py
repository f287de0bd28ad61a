"""What TensorBoard and MLflow are told is what the record has, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import Configuration
from slimsearch.report.display import Silent
from slimsearch.report.loggers import with_loggers
from slimsearch.report.stored_run import stored_run
from tests.conftest import TINY, Run

WORDS = ("--space", TINY, "--dataset", "digits", "--epochs", "2", "--top-k", "1", "--compress", "quantize")


@pytest.fixture
def logged(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of three trials that was gone on with after two."""
    pytest.importorskip("tensorboard")
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    done = run(*WORDS, "--trials", "2", "--log", "tensorboard,mlflow", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    assert "switched off" not in done.stdout
    assert done.stderr == ""
    done = run("--resume", "run", "--trials", "3")
    assert done.returncode == 0, done.stderr
    assert "switched off" not in done.stdout
    return tmp_path / "run"


def test_every_trial_is_there_once(logged: Path) -> None:
    trials = {t.number: t for t in stored_run(logged).trials}
    _in_tensorboard(logged / "tensorboard", trials)
    _in_mlflow(logged, trials)


def _in_tensorboard(folder: Path, trials: dict[int, Any]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert {path.name for path in folder.iterdir()} == {"run", *(f"{number:05d}" for number in trials)}
    for number, trial in trials.items():
        found = EventAccumulator(str(folder / f"{number:05d}"))
        found.Reload()
        if trial.curve:
            points = [(e.step, e.value) for e in found.Scalars("training/val_accuracy")]
            assert points == [(p["epoch"], pytest.approx(p["val_accuracy"])) for p in trial.curve]
        (accuracy,) = found.Scalars("file/val_accuracy")
        assert accuracy.value == pytest.approx(trial.metrics["val_accuracy"])
    whole = EventAccumulator(str(folder / "run"))
    whole.Reload()
    best = [event.value for event in whole.Scalars("run/best_val_accuracy")]
    assert best == sorted(best)


def _in_mlflow(logged: Path, trials: dict[int, Any]) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{logged / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("slimsearch")
    runs = client.search_runs([experiment.experiment_id])
    by_trial = {run.data.tags["slimsearch.trial"]: run for run in runs}
    assert len(runs) == len(by_trial) == len(trials) + 1
    parent = by_trial.pop("none")
    assert parent.info.status == "FINISHED"
    assert "top_models.json" in {file.path for file in client.list_artifacts(parent.info.run_id)}
    for number, run in by_trial.items():
        trial = trials[int(number)]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.metrics["val_accuracy"] == trial.metrics["val_accuracy"]
        assert run.data.params["width"] == str(trial.candidate.architecture["width"])
        if trial.final:
            assert run.data.metrics["final.test_accuracy"] == trial.final["test_accuracy"]


def test_a_logger_in_trouble_does_not_end_the_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////dev/null/mlflow.db")
    done = run(*WORDS[:-2], "--compress", "none", "--trials", "1", "--log", "mlflow", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--log mlflow failed") == 1


def test_a_logger_that_there_is_not(run: Run, tmp_path: Path) -> None:
    with pytest.raises(SlimsearchError, match="unknown logger 'wandb'; known: mlflow, tensorboard"):
        with_loggers(Silent(), Configuration(space="lenet", log="wandb"))
    done = run(*WORDS, "--log", "wandb", "--run-dir", "run")
    assert done.returncode == 2
    assert not (tmp_path / "run").exists()
