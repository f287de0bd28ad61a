"""Base class of loggers, which detects new epochs and finished trials."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import COMPLETE, Trial
from slimsearch.report.display import Silent
from slimsearch.report.result import Result
from slimsearch.report.run_summary import run_status


class Logger(Silent):
    """Receives the events of a run and calls the abstract methods for each new epoch, trial and finalist."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._logged: dict[int, int] = {}  # the last logged epoch of each trial
        self._trials: dict[int, Trial] = {}
        self._ranking: Ranking | None = None

    @contextlib.contextmanager
    def open(self, path: Path) -> Iterator[None]:
        self.begin(path)
        try:
            yield
        finally:
            self.end()

    def phase(
        self, name: str, length: int, trials: Sequence[Trial], ranking: Ranking, following: float = 0.0,
        seconds: float = 0.0,
    ) -> None:  # fmt: skip
        self._ranking = ranking
        for trial in trials:
            self._trials[trial.number] = trial
            self._logged.setdefault(trial.number, trial.epochs_done)  # by an earlier process

    def update(self, trial: Trial) -> None:
        before = self._trials.get(trial.number)
        self._trials[trial.number] = trial
        last = self._logged.get(trial.number, 0)
        for point in trial.curve:
            epoch = int(point["epoch"])
            if epoch > last:
                self.epoch(trial, epoch, {name: value for name, value in point.items() if name != "epoch"})
                self._logged[trial.number] = epoch
        if not trial.unfinished and (before is None or before.unfinished):
            self.ended(trial)
            if trial.state == COMPLETE:
                self.standing(trial.number, self._standing())

    def result(self, result: Result, ranking: Ranking) -> None:
        for trial in result.trials:
            if trial.final:
                self.finalist(trial)

    def _standing(self) -> dict[str, float]:
        """The best value of each objective and the hypervolume."""
        if self._ranking is None:
            return {}
        now = run_status(self._ranking, list(self._trials.values()))
        volume = {} if now.hypervolume is None else {"hypervolume": now.hypervolume}
        return {**{f"best_{metric}": value for metric, value in now.best.items()}, **volume}

    @abstractmethod
    def begin(self, path: Path) -> None:
        """The run in `path` starts or resumes."""

    @abstractmethod
    def epoch(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
        """A trial has finished an epoch of training."""

    @abstractmethod
    def ended(self, trial: Trial) -> None:
        """A trial has ended, in any state."""

    @abstractmethod
    def standing(self, number: int, metrics: Mapping[str, float]) -> None:
        """Best values and hypervolume after trial `number`."""

    @abstractmethod
    def finalist(self, trial: Trial) -> None:
        """A finalist has its final metrics."""

    @abstractmethod
    def end(self) -> None:
        """This process leaves the run."""
