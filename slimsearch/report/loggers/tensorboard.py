"""Logging to TensorBoard: curve, choices and metrics of each trial, and best values of the run."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import Configuration
from slimsearch.record.trial import Trial
from slimsearch.report.loggers._logger import Logger
from slimsearch.report.tables import recipe_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


class Tensorboard(Logger):
    """Writes to ``tensorboard/`` in the run directory; view it with ``tensorboard --logdir RUN_DIR/tensorboard``.

    Raises:
        SlimsearchError: TensorBoard is not installed.
    """

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        if importlib.util.find_spec("tensorboard") is None:
            raise SlimsearchError("--log tensorboard needs TensorBoard: pip install 'slimsearch[tensorboard]'")

    def begin(self, path: Path) -> None:
        self._folder = path / FOLDER
        self._run = self._open("run")
        self._open_trials: dict[int, SummaryWriter] = {}

    def epoch(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
        writer = self._of(trial)
        for name, value in metrics.items():
            writer.add_scalar(f"training/{name}", value, epoch)
        writer.flush()

    def ended(self, trial: Trial) -> None:
        from torch.utils.tensorboard.summary import hparams

        writer = self._of(trial)
        choices = {label: _shown(value) for label, value in trial.point.items()}
        if trial.candidate.recipe:
            choices["recipe"] = recipe_text(trial.candidate.recipe)
        metrics = {f"file/{name}": value for name, value in trial.metrics.items()}
        file: Any = writer.file_writer
        for summary in hparams(choices, metrics):  # type: ignore[no-untyped-call]
            file.add_summary(summary)
        for name, value in metrics.items():
            writer.add_scalar(name, value, 0)
        writer.add_text("state", trial.error or trial.reason or trial.state)
        writer.close()
        del self._open_trials[trial.number]

    def standing(self, number: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._run.add_scalar(f"run/{name}", value, number)
        self._run.flush()

    def finalist(self, trial: Trial) -> None:
        with self._open(f"{trial.number:05d}") as writer:
            for name, value in trial.final.items():
                writer.add_scalar(f"final/{name}", value, 0)

    def end(self) -> None:
        for writer in (self._run, *self._open_trials.values()):
            writer.close()

    def _of(self, trial: Trial) -> SummaryWriter:
        if trial.number not in self._open_trials:
            self._open_trials[trial.number] = self._open(f"{trial.number:05d}")
        return self._open_trials[trial.number]

    def _open(self, name: str) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder / name))


def _shown(value: object) -> object:
    return value if isinstance(value, bool | int | float | str) else str(value)
