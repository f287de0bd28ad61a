"""Finalists made again with other seeds: how much of an accuracy is the seed's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluators import Artifact, Outcome, Task
from experiments.artifacts import artifact
from experiments.record import Record
from experiments.run_directory import RunDirectory
from experiments.search import Attempts
from experiments.trial import COMPLETE, COMPRESSION, LOST, REPEAT, RUNNING, Trial
from strategies import Failure


class RepeatPhase:
    """Trains each finalist again from new weights, and compresses it again where it is compressed.

    A compressed finalist begins with the repetition of the network that it was made from, which is therefore repeated
    too. Repetitions are trials of their own kind, on no front; the numbers of the finalist itself stay as they are.

    Args:
        finalists: what is made again.
        repeats: how many trainings there are of each, the first one included.
        record, directory: where it is kept.
        seed: of the run; each trial has one of its own.
        teacher: of distillations that ask for the best network of the run.
        retries: for a trial whose worker died.
    """

    def __init__(
        self, finalists: Sequence[Trial], repeats: int, *, record: Record, directory: RunDirectory, seed: int,
        teacher: Artifact | None, retries: int = 1,
    ) -> None:  # fmt: skip
        self._record = record
        self._directory = directory
        self._seed = seed
        self._teacher = teacher
        self._attempts = Attempts(retries)
        originals: dict[int, Trial] = {}
        for trial in finalists:
            for one in reversed(_line_of(trial, record)):  # parents come before what was made from them
                originals[one.number] = one
        self._wanted = [(one, turn) for turn in range(1, repeats) for one in originals.values()]
        self._again = [
            t.number for t in record.standing if t.state == RUNNING and t.kind == REPEAT and record.mine(t.number)
        ]

    @property
    def length(self) -> int:
        """Trials that the phase consists of."""
        return len(self._wanted)

    def ask(self) -> Task | None:
        """The next repetition whose start is there."""
        self._record.sync()
        while self._again:
            trial = self._record.trials[self._again.pop(0)]
            if trial.state == RUNNING:
                return self._task(trial)
        for original, turn in self._wanted:
            if _find(self._record, original, turn) is not None:
                continue
            start = None
            if original.kind == COMPRESSION:
                assert original.parent is not None
                start = _find(self._record, self._record.trials[original.parent], turn)
                if start is None or start.state != COMPLETE:
                    continue
            trial = self._record.start(
                original.candidate, kind=REPEAT, fidelity=original.fidelity, seed=self._seed,
                parent=None if start is None else start.number, repeats=original.number, turn=turn,
            )  # fmt: skip
            return self._task(trial) if trial.state == RUNNING else self.ask()
        return None

    def waits(self) -> bool:
        """Whether another driver is at a repetition that others may wait for."""
        return self._record.others(REPEAT, RUNNING)

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Record an epoch."""
        self._record.epoch(number, epoch, metrics)
        return self._record.trials[number].state != LOST

    def tell(self, number: int, result: Outcome | Failure) -> None:
        """Record a repetition; one that failed says so, and what would have started from it is left out."""
        if self._record.trials[number].state == LOST:
            return
        if isinstance(result, Outcome):
            self._record.finish(number, result)
        elif self._attempts.another(number, result):
            self._again.append(number)
        else:
            self._record.fail(number, result.error)

    def _task(self, trial: Trial) -> Task:
        start = None
        if trial.parent is not None:
            start = artifact(self._record.trials[trial.parent], self._record, self._directory)
        return Task(
            number=trial.number, candidate=trial.candidate, fidelity=trial.fidelity, seed=trial.seed,
            directory=self._directory.trial_directory(trial.number), start=start, teacher=self._teacher,
        )  # fmt: skip


def repetitions(trial: Trial, trials: Sequence[Trial]) -> list[Trial]:
    """The finished repetitions of `trial`."""
    return [t for t in trials if t.kind == REPEAT and t.repeats == trial.number and t.state == COMPLETE]


def _line_of(trial: Trial, record: Record) -> list[Trial]:
    """`trial`, what it was compressed from, and so on."""
    found = [trial]
    while found[-1].kind == COMPRESSION and (parent := found[-1].parent) is not None:
        found.append(record.trials[parent])
    return found


def _find(record: Record, original: Trial, turn: int) -> Trial | None:
    return next(
        (t for t in record.standing if t.kind == REPEAT and t.repeats == original.number and t.turn == turn), None
    )
