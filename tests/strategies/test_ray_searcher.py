"""What Tune is told to run, and what becomes of trials that are lost: without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from slimsearch.evaluators import Outcome, Task
from slimsearch.search_spaces import Candidate
from slimsearch.strategies import Failure
from slimsearch.strategies._ray.tune_tasks import EVENT, TASK, OutOfMemory, TaskSearcher

DONE = {EVENT: Outcome({"score": 1.0})}
SHORT = {EVENT: OutOfMemory()}


class Tasks:
    """A search of so many tasks, which hands out once more what was lost by no fault of its own."""

    def __init__(self, count: int) -> None:
        self.waiting = [Task(number, Candidate({}), 1, 0, Path()) for number in range(count)]
        self.told: list[tuple[int, Outcome | Failure]] = []

    def ask(self) -> Task | None:
        return self.waiting.pop(0) if self.waiting else None

    def tell(self, number: int, result: Outcome | Failure) -> None:
        self.told.append((number, result))
        if isinstance(result, Failure) and result.blameless:
            self.waiting.insert(0, Task(number, Candidate({}), 1, 0, Path()))

    @property
    def ends(self) -> dict[int, bool]:
        """Of each task whether it failed, by what was told last."""
        return {number: isinstance(result, Failure) for number, result in self.told}


class Silent:
    """Whatever is told of what happens."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def searcher(tasks: Tasks, limit: int) -> TaskSearcher:
    return TaskSearcher(tasks, Silent(), limit, Silent(), lambda: False)  # type: ignore[arg-type]


def number(suggested: dict[str, Any] | str | None) -> int:
    assert isinstance(suggested, dict)
    task: Task = suggested[TASK]
    return task.number


def test_what_was_lost_to_memory_runs_by_itself_when_nothing_else_is_left() -> None:
    tasks = Tasks(4)
    tune = searcher(tasks, 2)
    assert [number(tune.suggest(name)) for name in "ab"] == [0, 1]
    tune.on_trial_complete("a", SHORT)
    tune.on_trial_complete("b", SHORT)
    assert [number(tune.suggest(name)) for name in "cd"] == [2, 3], "others first"
    tune.on_trial_complete("c", DONE)
    assert tune.suggest("e") is None, "not beside another one"
    tune.on_trial_complete("d", DONE)
    assert number(tune.suggest("f")) == 1
    assert tune.suggest("g") is None, "nothing beside it"
    tune.on_trial_complete("f", SHORT)
    assert number(tune.suggest("h")) == 0
    tune.on_trial_complete("h", DONE)
    assert tune.suggest("i") == Searcher.FINISHED
    assert tune.ended
    assert tasks.ends == {0: False, 1: True, 2: False, 3: False}
    assert [end for _, end in tasks.told if isinstance(end, Failure) and not end.blameless] == [
        Failure("its node ran out of memory, with no other trial beside it")
    ]


def test_what_runs_by_itself_and_is_lost_with_its_node_runs_by_itself_again() -> None:
    tasks = Tasks(1)
    tune = searcher(tasks, 1)
    assert number(tune.suggest("a")) == 0
    tune.on_trial_complete("a", SHORT)
    assert number(tune.suggest("b")) == 0
    tune.on_trial_complete("b", error=True)
    assert number(tune.suggest("c")) == 0
    tune.on_trial_complete("c", SHORT)
    assert tune.suggest("d") == Searcher.FINISHED
    assert tasks.ends == {0: True}


def test_what_was_running_when_tune_ended_is_run_again() -> None:
    tasks = Tasks(3)
    tune = searcher(tasks, 2)
    assert [number(tune.suggest(name)) for name in "ab"] == [0, 1]
    tune.lost()
    assert all(isinstance(end, Failure) and end.blameless for _, end in tasks.told)
    assert sorted(number(tune.suggest(name)) for name in "cd") == [0, 1]
    tune.on_trial_complete("c", DONE)
    tune.on_trial_complete("d", DONE)
    assert number(tune.suggest("e")) == 2
    tune.on_trial_complete("e", DONE)
    assert tune.suggest("f") == Searcher.FINISHED
    assert tasks.ends == {0: False, 1: False, 2: False}
