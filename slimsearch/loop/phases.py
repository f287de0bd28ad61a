"""The interface of a phase, phases of planned trials, and all phases of a run as one search for a strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Protocol

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Artifact, Outcome, Task, finite_numbers
from slimsearch.record.lineage import artifact
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import LOST, RUNNING, Trial
from slimsearch.search_spaces import Point
from slimsearch.strategies import Failure, Recorded, RunStatus

# A trial that is lost with this many machines is assumed to crash them.
_LOST_MACHINES = 10


class Phase(Protocol):
    """A part of a run: hands out tasks, and takes results."""

    @property
    def length(self) -> int:
        """Number of trials of the phase, including those of earlier processes."""

    def ask(self) -> Task | None:
        """The next task, or None; None while no task is running means that the phase is over."""

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Take the metrics of an epoch of a running task; returns whether it continues."""

    def tell(self, number: int, result: Outcome | Failure) -> None:
        """Take the result of a task."""

    def waits(self) -> bool:
        """Whether trials of other drivers may lead to new tasks, when there is none now and none is running here."""


class OpenPhase(Phase, Protocol):
    """A phase in which the strategy proposes candidates while it is open."""

    open: bool

    def offer(self, architecture: Point) -> Task | Recorded | None:
        """See `slimsearch.strategies.Search`."""

    def close(self) -> None:
        """See `slimsearch.strategies.Search`."""

    def recorded(self, number: int) -> Recorded | None:
        """See `slimsearch.strategies.Search`."""


class Phases:
    """All phases of a run as one `slimsearch.strategies.Search`.

    A phase begins when the previous one has no task left and none running.

    Args:
        first: the search; if the strategy proposes, it lasts until the strategy closes it.
        others: the later phases, each constructed when it begins.
        status: returns the status of the run.
        wait: waits for other drivers.
    """

    def __init__(
        self, first: OpenPhase, others: Iterator[Phase], status: Callable[[], RunStatus],
        wait: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._search = first
        self._others = others
        self.status = status
        self._wait = wait
        self._current: Phase = first
        self._running: set[int] = set()
        self._wrong: dict[int, str] = {}  # trial that has reported no numbers -> its error

    def ask(self) -> Task | None:
        while True:
            task = self._current.ask()
            if task is not None:
                self._running.add(task.number)
                return task
            if self._running or (self._current is self._search and self._search.open):
                return None
            if self._current.waits():
                self._wait()
                continue
            following = next(self._others, None)
            if following is None:
                return None
            self._current = following

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        try:
            checked = finite_numbers(metrics)
        except SlimsearchError as error:  # a strategy may have workers of its own, which do not check this
            self._wrong.setdefault(number, str(error))
            return False
        return self._current.report(number, epoch, checked)

    def tell(self, number: int, result: Outcome | Failure) -> None:
        self._running.discard(number)
        wrong = self._wrong.pop(number, None)
        if not isinstance(result, Failure):
            try:
                result = Outcome.checked(result) if wrong is None else Failure(wrong)
            except SlimsearchError as error:
                result = Failure(str(error))
        self._current.tell(number, result)

    def offer(self, architecture: Point) -> Task | Recorded | None:
        answer = self._search.offer(architecture)
        if isinstance(answer, Task):
            self._running.add(answer.number)
        return answer

    def close(self) -> None:
        self._search.close()

    def recorded(self, number: int) -> Recorded | None:
        return self._search.recorded(number)


class Attempts:
    """Decides which failed trials are retried: those whose worker died, up to `retries` times each.

    Trials lost with their machine are counted separately: a trial may be lost several times before the machine is known
    to be gone.
    """

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._lost: dict[int, int] = {}
        self._with_machines: dict[int, int] = {}

    def another(self, number: int, failure: Failure) -> bool:
        """Whether to retry the trial after `failure`.

        Raises:
            SlimsearchError: the disk is not writable; the trial is run again when the run is resumed.
        """
        if failure.unwritable:
            raise SlimsearchError(f"{failure.error}; finished trials are kept, continue with --resume")
        if failure.blameless:
            self._with_machines[number] = self._with_machines.get(number, 0) + 1
            return self._with_machines[number] <= _LOST_MACHINES
        self._lost[number] = self._lost.get(number, 0) + 1
        return failure.worker_died and self._lost[number] <= self._retries


class PlannedPhase(ABC):
    """A `Phase` of trials of one kind, which are known when it begins.

    Interrupted trials of this driver are evaluated first.

    Args:
        record, directory: of the run.
        seed: of the run.
        teacher: the best network of the run, for distillation.
        retries: of a trial whose worker died.
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
            t.number for t in record.standing if t.state == RUNNING and t.kind == self.kind and record.is_own(t.number)
        ]

    @property
    @abstractmethod
    def length(self) -> int:
        """Number of trials of the phase."""

    @abstractmethod
    def _begin(self) -> Trial | None:
        """Start and return the next trial; None if there is none now."""

    def ask(self) -> Task | None:
        """The next trial for this driver."""
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
        """Whether another driver evaluates a trial that others may depend on."""
        return self._record.others_have(self.kind, RUNNING)

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Record an epoch."""
        self._record.epoch(number, epoch, metrics)
        return self._record.trials[number].state != LOST

    def tell(self, number: int, result: Outcome | Failure) -> None:
        """Record a result; trials that would start from a failed trial are left out."""
        if self._record.trials[number].state == LOST:
            return  # another driver evaluates the candidate
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
