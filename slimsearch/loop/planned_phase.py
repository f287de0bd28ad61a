"""What the phases after the search have in common: their trials are known, and stand aside of the strategy's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from slimsearch.evaluators import Artifact, Outcome, Task
from slimsearch.loop.attempts import Attempts
from slimsearch.record.artifacts import artifact
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import LOST, RUNNING, Trial
from slimsearch.strategies import Failure


class PlannedPhase(ABC):
    """A `Phase` of trials of one kind; those that this driver had begun before it was stopped are evaluated first.

    Args:
        record, directory: where it is kept.
        seed: of the run.
        teacher: of distillations that ask for the best network of the run.
        retries: for a trial whose worker died.
    """

    kind: ClassVar[str]

    def __init__(
        self, record: Record, directory: RunDirectory, seed: int, teacher: Artifact | None, retries: int
    ) -> None:
        self._record = record
        self._directory = directory
        self._seed = seed
        self._teacher = teacher
        self._attempts = Attempts(retries)
        self._again = [
            t.number for t in record.standing if t.state == RUNNING and t.kind == self.kind and record.mine(t.number)
        ]

    @property
    @abstractmethod
    def length(self) -> int:
        """Trials that the phase consists of."""

    @abstractmethod
    def _begin(self) -> Trial | None:
        """The next trial, from `Record.start`; None: nothing is free now."""

    def ask(self) -> Task | None:
        """The next trial that is ours to evaluate."""
        self._record.sync()
        while self._again:
            trial = self._record.trials[self._again.pop(0)]
            if trial.state == RUNNING:
                return self._task(trial)
        while (begun := self._begin()) is not None:
            if begun.state == RUNNING:  # else another driver was faster
                return self._task(begun)
        return None

    def waits(self) -> bool:
        """Whether another driver is at a trial after which one of ours may be free."""
        return self._record.others(self.kind, RUNNING)

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Record an epoch."""
        self._record.epoch(number, epoch, metrics)
        return self._record.trials[number].state != LOST

    def tell(self, number: int, result: Outcome | Failure) -> None:
        """Record a result; a trial that failed says so, and what would have started from it is left out."""
        if self._record.trials[number].state == LOST:
            return  # another driver has it evaluated, or will
        if isinstance(result, Outcome):
            self._finish(number, result)
        elif self._attempts.another(number, result):
            self._again.append(number)
        else:
            self._record.fail(number, result.error)

    def _finish(self, number: int, outcome: Outcome) -> None:
        self._record.finish(number, outcome)

    def _task(self, trial: Trial) -> Task:
        start = None
        if trial.parent is not None:
            start = artifact(self._record.trials[trial.parent], self._record, self._directory)
        return Task(
            number=trial.number, candidate=trial.candidate, fidelity=trial.fidelity, seed=trial.seed,
            directory=self._directory.trial_directory(trial.number), start=start, teacher=self._teacher,
        )  # fmt: skip
