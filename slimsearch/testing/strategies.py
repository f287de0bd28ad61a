"""Laws of strategies: each task gets one result, whatever happens to its worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from slimsearch.evaluators import Outcome, ReportEpoch, Task
from slimsearch.search_spaces import Candidate, ChoiceSpace, Point
from slimsearch.strategies import Failure, Recorded, RunStatus, Strategy, StrategySettings, load_strategy, traits_of
from slimsearch.testing._contract import Contract


class NamedBehavior:
    """An evaluator with the behavior that the architecture names."""

    space = ChoiceSpace({"what": ["fine", "raise", "stop", "die"]})

    def evaluate(self, task: Task, *, report: ReportEpoch) -> Outcome:
        """Report four epochs, unless the architecture names another behavior."""
        what = task.candidate.architecture["what"]
        print("said on standard output")
        if what == "raise":
            raise ValueError("first line\nsecond line")
        if what == "unpicklable":

            class Local(Exception):
                pass

            raise Local("cannot travel")
        if what == "cycle":
            first, second = ValueError("first"), KeyError("second")
            first.__cause__, second.__context__ = second, first
            raise first
        if what == "generator":
            raise GeneratorExit("leaves")
        if what == "nothing":
            return None  # type: ignore[return-value]
        if what == "not a number":
            report(0, {"val_accuracy": float("nan")})
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "exit":
            os._exit(3)
        if what == "hang":
            time.sleep(3600)
        for epoch in range(4):
            if not report(epoch, {"val_accuracy": epoch / 4}):
                return Outcome({"epochs": epoch})
        return Outcome({"epochs": 4, "process": os.getpid()})


class ScriptedSearch:
    """A search that hands out fixed tasks, accepts a number of offers, and records every call.

    Args:
        folder: for the folders of the trials.
        behaviors: of the tasks, see `NamedBehavior`.
        offers: number of candidates that a strategy may offer.

    Attributes:
        results: (trial, result) pairs, in the order of `tell`.
        reports: (trial, epoch) pairs, in the order of `report`.
        closed: number of calls of `close`.
    """

    def __init__(self, folder: Path, behaviors: Sequence[str], *, offers: int = 0) -> None:
        self.folder, self.offers, self.closed = folder, offers, 0
        self.tasks: list[Task] = []
        for behavior in behaviors:
            self._add(Candidate({"what": behavior}))
        self.waiting = list(self.tasks)
        self.results: list[tuple[int, Outcome | Failure]] = []
        self.reports: list[tuple[int, int]] = []

    def _add(self, candidate: Candidate) -> Task:
        number = len(self.tasks)
        directory = self.folder / str(number)
        directory.mkdir()
        self.tasks.append(Task(number, candidate, 1, 0, directory))
        return self.tasks[-1]

    def ask(self) -> Task | None:
        return self.waiting.pop(0) if self.waiting else None

    def offer(self, architecture: Point) -> Task | Recorded | None:
        assert not self.closed, "a candidate is offered after `close`"
        candidate = NamedBehavior.space.candidate(architecture)
        number = next((task.number for task in self.tasks if task.candidate == candidate), None)
        if number is not None:
            return self.recorded(number) or Recorded({}, None, running=number)
        if not self.offers:
            return None
        self.offers -= 1
        return self._add(candidate)

    def close(self) -> None:
        self.closed += 1

    def recorded(self, number: int) -> Recorded | None:
        result = dict(self.results).get(number)
        if result is None:
            return None
        return Recorded({}, (-result.metrics["epochs"],) if isinstance(result, Outcome) else None)

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        self.reports.append((number, epoch))
        return not (self.tasks[number].candidate.architecture["what"] == "stop" and epoch == 2)

    def tell(self, number: int, result: Outcome | Failure) -> None:
        self.results.append((number, result))

    def status(self) -> RunStatus:
        return RunStatus({"running": 1}, {"epochs": 4.0}, None)


class StrategyContract(Contract):
    """Laws of every strategy.

    Attributes:
        strategy: a value of ``--strategy``, or a function or class that takes `StrategySettings`; or a list of these.
    """

    subject = "strategy"
    strategy: Any

    @pytest.fixture
    def new_strategy(self, strategy: Any) -> Callable[..., Strategy]:
        """Constructs the strategy with the given fields of `StrategySettings`."""

        def new(**settings: Any) -> Strategy:
            given = StrategySettings(**settings)
            found: Strategy = load_strategy(strategy, given) if isinstance(strategy, str) else strategy(given)
            return found

        return new

    def test_traits_are_declared(self, new_strategy: Callable[..., Strategy]) -> None:
        assert traits_of(new_strategy()) == traits_of(new_strategy(workers=2))

    def test_outcomes_and_errors_are_told_once(self, new_strategy: Callable[..., Strategy], tmp_path: Path) -> None:
        behaviors = ["fine", "raise", "stop", "fine"]
        search = ScriptedSearch(tmp_path, behaviors)
        new_strategy(workers=2).run(search, NamedBehavior())
        assert sorted(number for number, _ in search.results) == [0, 1, 2, 3]
        for number, result in search.results:
            if behaviors[number] == "raise":
                assert isinstance(result, Failure)
                assert result.error == "ValueError: first line"
                assert not result.worker_died
            else:
                assert isinstance(result, Outcome)
                assert result.metrics["epochs"] == (2 if behaviors[number] == "stop" else 4)

    def test_epochs_are_reported_in_order(self, new_strategy: Callable[..., Strategy], tmp_path: Path) -> None:
        search = ScriptedSearch(tmp_path, ["fine", "fine"])
        new_strategy(workers=2).run(search, NamedBehavior())
        for number in (0, 1):
            assert [epoch for n, epoch in search.reports if n == number] == [0, 1, 2, 3]

    def test_nothing_to_do_is_no_error(self, new_strategy: Callable[..., Strategy], tmp_path: Path) -> None:
        search = ScriptedSearch(tmp_path, [])
        new_strategy(workers=1).run(search, NamedBehavior())
        assert search.results == []


class WorkerStrategyContract(StrategyContract):
    """Laws of strategies that evaluate in worker processes.

    Attributes:
        trial_timeout: seconds that a trial may take; includes the start of its process if each trial has one.
    """

    trial_timeout: ClassVar[float] = 3

    def test_everything_is_told_once(self, new_strategy: Callable[..., Strategy], tmp_path: Path) -> None:
        failing = ["raise", "die", "exit", "unpicklable", "hang", "cycle", "generator", "nothing", "not a number"]
        behaviors = ["fine", *failing, "stop", "fine", "fine"]
        search = ScriptedSearch(tmp_path, behaviors)
        new_strategy(workers=2, trial_timeout=self.trial_timeout).run(search, NamedBehavior())
        assert sorted(number for number, _ in search.results) == list(range(len(behaviors)))
        results = dict(search.results)
        said = {
            "unpicklable": "cannot travel", "cycle": "ValueError: first", "generator": "GeneratorExit: leaves",
            "nothing": "returned NoneType", "not a number": "'val_accuracy' is nan",
        }  # fmt: skip
        for number, behavior in enumerate(behaviors):
            result = results[number]
            if behavior in ("fine", "stop"):
                assert isinstance(result, Outcome)
                assert result.metrics["epochs"] == (4 if behavior == "fine" else 2)
                continue
            assert isinstance(result, Failure)
            assert "\n" not in result.error
            assert result.worker_died == (behavior in ("die", "exit"))
            if behavior == "raise":
                assert result.error == "ValueError: first line"
            elif behavior == "hang":
                assert f"longer than --trial-timeout {self.trial_timeout:g} s" in result.error
            elif behavior in said:
                assert said[behavior] in result.error

    def test_output_goes_to_the_log_of_the_trial(
        self, new_strategy: Callable[..., Strategy], tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        search = ScriptedSearch(tmp_path, ["fine", "raise"])
        new_strategy(workers=1).run(search, NamedBehavior())
        assert "said on standard output" in (tmp_path / "0" / "log.txt").read_text()
        log = (tmp_path / "1" / "log.txt").read_text()
        assert "Traceback" in log
        assert "second line" in log
        assert "said on standard output" not in capfd.readouterr().out

    def test_workers_are_gone_afterwards(self, new_strategy: Callable[..., Strategy], tmp_path: Path) -> None:
        search = ScriptedSearch(tmp_path, ["fine", "fine", "fine"])
        new_strategy(workers=2).run(search, NamedBehavior())
        processes = {int(result.metrics["process"]) for _, result in search.results if isinstance(result, Outcome)}
        deadline = time.monotonic() + 5
        while any(Path(f"/proc/{process}").exists() for process in processes):
            assert time.monotonic() < deadline
            time.sleep(0.1)


class ProposingStrategyContract(StrategyContract):
    """Laws of strategies that propose candidates themselves, with ``Traits(proposes=True)``."""

    @pytest.mark.parametrize("offers", [2, 100])
    def test_offers_are_told_once_and_end(
        self, new_strategy: Callable[..., Strategy], offers: int, tmp_path: Path
    ) -> None:
        strategy = new_strategy(workers=2)
        assert traits_of(strategy).proposes
        search = ScriptedSearch(tmp_path, [], offers=offers)
        strategy.run(search, NamedBehavior())
        assert search.closed == 1
        assert sorted(number for number, _ in search.results) == list(range(min(offers, 4)))
