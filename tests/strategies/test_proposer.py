"""Candidates that a proposer offers to a search: each evaluated once, each result told once, and an end to it."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from slimsearch.evaluators import Outcome, ReportEpoch, Task
from slimsearch.search_spaces import ChoiceSpace, Point
from slimsearch.strategies import Exhausted, Failure, ProposerSearch, Recorded
from slimsearch.strategies._ray.tune_proposer import TuneProposer
from tests.strategies.stand_ins import Cheap, Inline, Recorder, check_record, worth

TABLE = ChoiceSpace({"a": list(range(5))})


class Scripted:
    """A proposer from a generator, which yields points or None and is sent the new results: position and score."""

    name = "some-strategy"

    def __init__(self, script: Generator[Point | None, list[tuple[int, float | None]], None]) -> None:
        self._script = script
        self._keys: list[str] = []
        self._results: list[tuple[int, float | None]] | None = None

    def propose(self, key: str) -> Point | None:
        results, self._results = self._results, []
        try:
            point = next(self._script) if results is None else self._script.send(results)
        except StopIteration:
            raise Exhausted from None
        if point is not None:
            self._keys.append(key)
        return point

    def tell(self, key: str, losses: tuple[float, ...] | None, *, failed: bool = False) -> None:
        assert self._results is not None
        self._results.append((self._keys.index(key), None if losses is None else -losses[0]))

    def close(self) -> None: ...


def drive(search: Recorder, script: Any, evaluator: Any, workers: int = 1) -> None:
    proposing = ProposerSearch(search, Scripted(script), search.space)
    Inline(workers, None, evaluator).evaluate(proposing)  # type: ignore[misc]


def test_endless_repeats_end_the_search(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers = []

    def stubborn() -> Any:
        while True:
            answers.append((yield {"a": 1}))

    search = Recorder(TABLE, tmp_path, 10)
    with caplog.at_level(logging.WARNING):
        drive(search, stubborn(), Cheap(TABLE))
    check_record(search, 1)
    assert "some-strategy ends: its last 200 proposals were nothing new" in caplog.text
    assert answers[0] == [(0, worth(search.offered[0]))]


def test_long_record_is_no_repeat(tmp_path: Path) -> None:
    space = ChoiceSpace({"a": list(range(600))})
    record = {space.candidate({"a": a}).key: 0.5 for a in range(500)}
    search = Recorder(space, tmp_path, 10, record=record)
    drive(search, ({"a": a} for a in range(505)), Cheap(space))
    check_record(search, 5)


def test_what_is_not_in_the_space_has_no_score(tmp_path: Path) -> None:
    answers = []

    def careless() -> Any:
        answers.append((yield {"a": 99}))
        answers.append((yield {"a": 1}))

    search = Recorder(TABLE, tmp_path, 10)
    drive(search, careless(), Cheap(TABLE))
    check_record(search, 1)
    assert answers == [[(0, None)], [(1, worth(search.offered[0]))]]


def test_equal_candidates_in_flight_share_a_trial(tmp_path: Path) -> None:
    answers = []

    def twins() -> Any:
        for point in ({"a": 1}, {"a": 1}, {"a": 2}, None):
            answers.append((yield point))

    search = Recorder(TABLE, tmp_path, 10)
    drive(search, twins(), Cheap(TABLE), workers=2)
    check_record(search, 2)
    one, two = map(worth, search.offered)
    assert answers == [[], [], [(0, one), (1, one)], [(2, two)]]


def test_interrupted_trial_answers_for_its_candidate(tmp_path: Path) -> None:
    answers = []

    def again() -> Any:
        for a in (1, 2):
            answers.append((yield {"a": a}))

    search = Recorder(TABLE, tmp_path, 10)
    search.again = [search._task(TABLE.candidate({"a": 1}))]
    drive(search, again(), Cheap(TABLE), workers=2)
    check_record(search, 1)
    assert answers == [[], [(0, worth(search.tasks[0].candidate))]]


def test_score_of_a_trial_whose_worker_died_is_that_of_its_second_attempt(tmp_path: Path) -> None:
    answers: list[Any] = []

    def one() -> Any:
        answers.append((yield {"a": 1}))

    @dataclass
    class DiesOnce(Cheap):
        died: list[int] = field(default_factory=list)

        def evaluate(self, task: Task, *, report: ReportEpoch) -> Outcome:
            if not self.died:
                self.died.append(task.number)
                raise OSError("killed")
            return super().evaluate(task, report=report)

    search = Recorder(TABLE, tmp_path, 10, retries=1)
    drive(search, one(), DiesOnce(TABLE))
    check_record(search, 1)
    assert answers == [[(0, worth(search.offered[0]))]]


def test_result_of_a_paused_trial_is_told_when_it_has_ended(tmp_path: Path) -> None:
    answers = []

    def two() -> Any:
        for a in (1, 2):
            answers.append((yield {"a": a}))
        answers.append((yield None))

    class Pausing(Recorder):
        """The first trial pauses, and goes on when the second one has ended."""

        def tell(self, number: int, result: Outcome | Failure) -> None:
            if number == 0 and len(self.told) == 0 and not self.paused:
                self.paused = True
                return
            super().tell(number, result)
            if number == 1:
                self.again.append(self.tasks[0])

        paused = False

    search = Pausing(TABLE, tmp_path, 10)
    drive(search, two(), Cheap(TABLE))
    check_record(search, 2)
    one, two_ = map(worth, search.offered)
    assert answers == [[], [(1, two_), (0, one)]]


def test_proposer_that_waits_for_a_paused_trial_is_told_that_it_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers = []

    def one() -> Any:
        answers.append((yield {"a": 1}))
        answers.append((yield None))
        answers.append((yield {"a": 2}))
        while True:
            answers.append((yield None))

    class Pausing(Recorder):
        def tell(self, number: int, result: Outcome | Failure) -> None:
            if number == 1:
                super().tell(number, result)

    search = Pausing(TABLE, tmp_path, 10)
    with caplog.at_level(logging.WARNING):
        drive(search, one(), Cheap(TABLE))
    assert search.closed == 1
    assert answers == [[], [(0, None)], [(1, worth(search.offered[1]))]]
    assert "some-strategy ends: it waits for results, and no trial is running" in caplog.text


class Told(Searcher):
    """A searcher of Ray Tune that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, tuple[Any, bool]] = {}
        self.points = iter([{"a": "1"}, {"a": "2"}, {"a": "3"}, {"a": "4"}])

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        return next(self.points, Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        self.told[trial_id] = result and result["objective_0"], error


def test_a_searcher_of_tune_is_told_what_failed_and_what_was_stopped(tmp_path: Path) -> None:
    """A trial that was stopped early or ruled out is no error, but has no result either."""
    answers = {
        1: Recorded({"val_accuracy": 0.5}, (-0.5,)), 2: Recorded({}, None), 3: Recorded({"val_accuracy": 0.1}, None),
        4: Recorded({"params": 9.0}, None),
    }  # fmt: skip

    class Stopping(Recorder):
        def recorded(self, number: int) -> Recorded | None:
            return answers[self.tasks[number].candidate.architecture["a"]]

    search = Stopping(TABLE, tmp_path, 10)
    proposer = TuneProposer(Told, TABLE, 1, 0)
    Inline(1, None, Cheap(TABLE)).evaluate(ProposerSearch(search, proposer, TABLE))  # type: ignore[misc]
    told = proposer._searcher.told
    assert list(told.values()) == [(-0.5, False), (None, True), (None, False), (None, False)]
