"""Logging to MLflow: one MLflow run for the search, with a nested run for each trial."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import COMPLETE, Trial
from slimsearch.report.loggers._logger import Logger
from slimsearch.report.result import Result
from slimsearch.report.tables import recipe_text

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "slimsearch"
_TRIAL, _RUN = "slimsearch.trial", "slimsearch.run"
_LONGEST = 500  # characters of a parameter


class Mlflow(Logger):
    """Logs to the server of ``MLFLOW_TRACKING_URI``, by default to ``mlflow.db`` in the run directory.

    View the latter with ``mlflow ui --backend-store-uri sqlite:///RUN_DIR/mlflow.db``. The experiment is
    ``MLFLOW_EXPERIMENT_NAME``, by default "slimsearch". MLflow's usage statistics are off
    unless ``MLFLOW_DISABLE_TELEMETRY=false``.

    Raises:
        SlimsearchError: MLflow is not installed.
    """

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        if importlib.util.find_spec("mlflow") is None:
            raise SlimsearchError("--log mlflow needs MLflow: pip install 'slimsearch[mlflow]'")

    def begin(self, path: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the run waits for an unreachable server
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._path = path
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{path / 'mlflow.db'}"
        self._client: MlflowClient = MlflowClient(uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        artifacts = None if os.environ.get("MLFLOW_TRACKING_URI") else (path / "mlflow").as_uri()
        self._experiment = found.experiment_id if found else self._client.create_experiment(name, artifacts)
        self._runs: dict[int, str] = {}
        self._parent = self._known(f"tags.`{_RUN}` = '{self._identity}' and tags.`{_TRIAL}` = 'none'")
        if self._parent is None:
            self._parent = self._create(path.name, {_TRIAL: "none"})
            for option in ("space", "dataset", "strategy", "sampler", "scheduler", "epochs", "seed", "objectives"):
                self._client.log_param(self._parent, option, getattr(self.configuration, option))
        self._client.set_tag(self._parent, "mlflow.source.name", "slimsearch")

    def epoch(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
        self._log(self._of(trial), {f"training.{name}": value for name, value in metrics.items()}, epoch)

    def ended(self, trial: Trial) -> None:
        run = self._of(trial)
        for label, value in trial.point.items():
            self._client.log_param(run, label, str(value)[:_LONGEST])
        if trial.candidate.recipe:
            self._client.log_param(run, "recipe", recipe_text(trial.candidate.recipe)[:_LONGEST])
        self._log(run, trial.metrics, 0)
        self._client.set_tag(run, "state", trial.state)
        if trial.error or trial.reason:
            self._client.set_tag(run, "reason", (trial.error or trial.reason or "")[:_LONGEST])
        self._client.set_terminated(run, "FINISHED" if trial.state == COMPLETE else "FAILED")

    def standing(self, number: int, metrics: Mapping[str, float]) -> None:
        assert self._parent is not None
        self._log(self._parent, metrics, number)

    def finalist(self, trial: Trial) -> None:
        run = self._of(trial)
        self._log(run, {f"final.{name}": value for name, value in trial.final.items()}, 0)
        file = trial.artifacts.get("model")
        if file is not None and (self._path / file).is_file():
            self._client.log_artifact(run, str(self._path / file))

    def result(self, result: Result, ranking: Ranking) -> None:
        super().result(result, ranking)
        assert self._parent is not None
        for name in ("top_models.json", "pareto.csv", "report.html"):
            if (result.directory / name).is_file():
                self._client.log_artifact(self._parent, str(result.directory / name))
        self._client.set_terminated(self._parent)

    def end(self) -> None:
        """Does nothing: metrics are sent immediately."""

    @property
    def _identity(self) -> str:
        return str(self._path)

    def _of(self, trial: Trial) -> str:
        if trial.number not in self._runs:
            query = f"tags.`{_RUN}` = '{self._identity}' and tags.`{_TRIAL}` = '{trial.number}'"
            self._runs[trial.number] = self._known(query) or self._create(
                f"{self._path.name} {trial.number}",
                {_TRIAL: str(trial.number), "mlflow.parentRunId": str(self._parent)},
            )
        return self._runs[trial.number]

    def _known(self, query: str) -> str | None:
        found = self._client.search_runs([self._experiment], query, max_results=1)
        return found[0].info.run_id if found else None

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(self._experiment, tags={_RUN: self._identity, **tags}, run_name=name)
        return str(run.info.run_id)

    def _log(self, run: str, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(run, [Metric(name, value, now, step) for name, value in metrics.items()])
