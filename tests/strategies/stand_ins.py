"""Stand-ins for a search, an evaluator and workers, for the tests of strategies that propose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimsearch.evaluators import Outcome, ReportEpoch, Task
from slimsearch.search_spaces import Candidate, Point, Space
from slimsearch.strategies import Failure, Recorded
from slimsearch.strategies._pool.workers import Done, Workers


class Recorder:
    """A search that takes offers, hands out `interrupted` tasks before and `later` ones after them, and remembers."""

    def __init__(
        self, space: Space, folder: Path, budget: int, *, interrupted: int = 0, later: int = 0, retries: int = 0,
        record: Mapping[str, float | None] | None = None,
    ) -> None:  # fmt: skip
        self.space, self.folder, self.budget, self.later, self.retries = space, folder, budget, later, retries
        self.record = dict(record or {})
        self.offered: list[Candidate] = []
        self.tasks: list[Task] = []
        self.told: list[tuple[int, Outcome | Failure]] = []
        self.epochs: list[tuple[int, int]] = []
        self.again = [self._task(Candidate({"interrupted": i})) for i in range(interrupted)]
        self.closed = 0

    def ask(self) -> Task | None:
        if self.again:
            return self.again.pop(0)
        if self.closed and self.later:
            self.later -= 1
            return self._task(Candidate({"later": self.later}))
        return None

    def offer(self, point: Point) -> Task | Recorded | None:
        assert not self.closed
        candidate = self.space.candidate(point)
        if candidate.key in self.record:
            score = self.record[candidate.key]
            return Recorded({}, None) if score is None else Recorded({"val_accuracy": score}, (-score,))
        if len(self.offered) >= self.budget:
            return None
        self.offered.append(candidate)
        return self._task(candidate)

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        self.epochs.append((number, epoch))
        return True

    def tell(self, number: int, result: Outcome | Failure) -> None:
        if isinstance(result, Failure) and result.worker_died and self.retries:
            self.retries -= 1
            self.again.append(self.tasks[number])
            return
        self.told.append((number, result))
        key = self.tasks[number].candidate.key
        self.record[key] = result.metrics["val_accuracy"] if isinstance(result, Outcome) else None

    def recorded(self, number: int) -> Recorded | None:
        if number not in dict(self.told):
            return None
        score = self.record[self.tasks[number].candidate.key]
        return Recorded({}, None if score is None else (-score,))

    def close(self) -> None:
        self.closed += 1

    def _task(self, candidate: Candidate) -> Task:
        directory = self.folder / str(len(self.tasks))
        directory.mkdir()
        self.tasks.append(Task(len(self.tasks), candidate, 1, 0, directory))
        return self.tasks[-1]


def worth(candidate: Candidate) -> float:
    """Some number, the same for the same candidate."""
    return int(candidate.key[:4], 16) / 65536


@dataclass
class Cheap:
    """An evaluator that trains nothing, but has what a supernet needs: of the data, the training split alone."""

    space: Space
    data: Any = None
    fails: bool = False

    def __getstate__(self) -> dict[str, Any]:
        # Without images no worker needs the space, and NNI with it.
        return {**vars(self), "space": self.space if self.data is not None else None}

    def evaluate(self, task: Task, *, report: ReportEpoch) -> Outcome:
        report(1, {"val_accuracy": worth(task.candidate)})
        if self.fails:
            raise ValueError("nothing works")
        return Outcome({"val_accuracy": worth(task.candidate)})


class Inline:
    """Workers without processes: results come in the order of the tasks."""

    def __init__(self, count: int, timeout: float | None, evaluator: Any) -> None:
        self._count, self._evaluator = count, evaluator
        self._tasks: list[Task] = []

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    @property
    def free(self) -> bool:
        return len(self._tasks) < self._count

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    evaluate = Workers.evaluate
    train = Workers.train

    def submit(self, task: Task, *, limited: bool = True) -> None:
        assert self.free
        self._tasks.append(task)

    def wait(self) -> Done:
        task = self._tasks.pop(0)
        try:
            return Done(task.number, self._evaluator.evaluate(task, report=lambda epoch, metrics: True))
        except OSError as error:
            return Done(task.number, Failure(str(error), worker_died=True))
        except Exception as error:
            return Done(task.number, Failure(str(error)))


def check_record(search: Recorder, offered: int) -> None:
    assert search.closed == 1
    assert len(search.offered) == len(set(search.offered)) == offered
    assert sorted(number for number, _ in search.told) == list(range(len(search.tasks)))
    assert all(search.space.contains(candidate.architecture) for candidate in search.offered)
