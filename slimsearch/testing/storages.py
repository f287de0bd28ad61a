"""Laws of storages: recorded trials are read back unchanged, and one driver evaluates each candidate."""

from __future__ import annotations

import multiprocessing
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective, Outcome, Task
from slimsearch.loop.search import ArchitectureSearch, Budget
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.shared.driver import Driver, Heartbeat
from slimsearch.record.shared.storage import normalised
from slimsearch.record.shared.study import SharedStudy
from slimsearch.record.trial import COMPLETE, FAILED, LOST, PAUSED, RULED_OUT, RUNNING, SEARCH, WITHDRAWN
from slimsearch.search_spaces import Candidate, ChoiceSpace
from slimsearch.strategies import Failure
from slimsearch.strategies.samplers import load_sampler
from slimsearch.testing._contract import Contract

_SPACE = ChoiceSpace({"a": [0, 1, 2, 3], "b": ["x", "y", [1, 2]]})
_OBJECTIVES = (Objective("val_accuracy", "maximize"), Objective("size_kib", "minimize"))
_METRICS = {"val_accuracy": 0.1 + 0.2, "size_kib": 3.5}
_BEAT = 1
_SETTINGS: dict[str, Any] = {"options": {"trials": 12}, "choices": {}, "dataset": ""}


class OpenRun:
    """An open run directory with its record.

    Args:
        url: of the storage; None: the journal in the run directory.
        study: name of the study.
        path: the run directory.
    """

    record: Record
    directory: RunDirectory
    heartbeat: Heartbeat

    def __init__(self, url: str | None, study: str, path: Path) -> None:
        self._url, self._study, self._path = url, study, path
        self._stack = ExitStack()

    def __enter__(self) -> OpenRun:
        new = not (self._path / "config.yaml").exists()
        self.directory = self._stack.enter_context(RunDirectory(self._path, create=new))
        self.directory.config.write_text("format: 1\n")
        if self._url is None:
            self.record = Record(self.directory.open_study(_OBJECTIVES), _SPACE, _OBJECTIVES)
            return self
        shared = SharedStudy(self._url, self._study, _BEAT)
        shared.join(_OBJECTIVES, _SETTINGS)
        driver = self._stack.enter_context(Driver(shared, self.directory.identity(), "here", self.directory.path))
        self.heartbeat = driver.heartbeat
        self.record = Record(shared.study, _SPACE, _OBJECTIVES, driver=driver)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self, position: int) -> int:
        """Start a trial of the candidate at `position` of the grid; returns its number."""
        point = list(_SPACE.grid())[position]
        return self.record.start(Candidate(point), kind=SEARCH, fidelity=3, seed=5).number

    def search(self, trials: int = 12) -> ArchitectureSearch:
        """A random search in this record."""
        return ArchitectureSearch(
            _SPACE, load_sampler("random"), Ranking(_OBJECTIVES), self.record, self.directory, Budget(trials, 3), seed=0
        )

    def work(self, trials: int = 12, pause: float = 0.0) -> list[int]:
        """Evaluate all tasks of a search; returns the numbers of the trials."""
        searching = self.search(trials)
        done: list[int] = []
        while True:
            task = searching.ask()
            if task is None and not searching.waits():
                return done
            if task is None:
                self.record.wait()
                continue
            time.sleep(pause)
            searching.tell(task.number, Outcome(_METRICS))
            done.append(task.number)


Open = Callable[[str], OpenRun]


class StorageContract(Contract):
    """Laws of every storage, used by one run at a time.

    Attributes:
        storage: a value of ``--storage``, in which ``{folder}`` is a new folder for each test; a function that returns
            one; or None for the journal in the run directory. Or a list of these. Each test creates a study.
    """

    subject = "storage"
    storage: Any

    @pytest.fixture
    def url(self, storage: Any, tmp_path: Path) -> str | None:
        """The storage under test."""
        named = storage() if callable(storage) else storage
        return None if named is None else normalised(named.replace("{folder}", str(tmp_path)))

    @pytest.fixture
    def study(self) -> str:
        """The name of a new study."""
        return f"study-{uuid.uuid4().hex[:12]}"

    @pytest.fixture
    def open_run(self, url: str | None, study: str, tmp_path: Path) -> Iterator[Open]:
        """Opens a run directory by its name, until the end of the test."""
        with ExitStack() as stack:
            yield lambda name: stack.enter_context(OpenRun(url, study, tmp_path / name))

    def test_what_is_recorded_comes_back(self, url: str | None, study: str, tmp_path: Path) -> None:
        with OpenRun(url, study, tmp_path / "a") as run:
            record = run.record
            for position in range(7):
                assert run.start(position) == position
            record.epoch(0, 0, {"size_kib": 3.5})
            record.epoch(0, 1, {"val_accuracy": 0.5, "train_loss": 1.0})
            record.finish(0, Outcome(_METRICS), violations=[0.5], reason="too large")
            record.fail(1, "ValueError: it gave up")
            record.finish(2, Outcome({"size_kib": 9.0}), state=RULED_OUT, reason="too large")
            record.epoch(3, 2, {"val_accuracy": 0.25})
            record.pause(3)
            record.pause(4)
            record.resume(4)
            record.epoch(5, 1, {"val_accuracy": 0.75})
            record.record_final({0: {"test_accuracy": 1 / 3}})
            before = list(record.trials)
        with OpenRun(url, study, tmp_path / "a") as run:  # as a new process would
            after = list(run.record.trials)
        assert [t.state for t in after] == [COMPLETE, FAILED, RULED_OUT, PAUSED, RUNNING, RUNNING, RUNNING]
        assert [(t.candidate, t.seed, t.metrics, t.error, t.reason, t.final) for t in before] == [
            (t.candidate, t.seed, t.metrics, t.error, t.reason, t.final) for t in after
        ]
        assert len({t.seed for t in after}) == len(after)
        assert [t.curve for t in before][:5] == [t.curve for t in after][:5]
        assert after[5].curve == ({"epoch": 1.0, "val_accuracy": 0.75},)
        assert after[0].final == {"test_accuracy": 1 / 3}

    def test_a_resumed_search_runs_its_own_again(self, url: str | None, study: str, tmp_path: Path) -> None:
        with OpenRun(url, study, tmp_path / "a") as run:
            first = run.search().ask()
        with OpenRun(url, study, tmp_path / "a") as run:
            again = run.search().ask()
        assert first is not None
        assert again is not None
        assert (again.number, again.candidate, again.seed) == (first.number, first.candidate, first.seed)

    def test_every_candidate_of_a_space_once(self, open_run: Open) -> None:
        run = open_run("a")
        run.work(trials=100)
        trials = run.record.trials
        assert len({t.candidate for t in trials}) == len(trials) == 12


def _one_of_several(url: str, study: str, path: Path, trials: int, evaluated: Queue[list[int]]) -> None:
    with OpenRun(url, study, path) as run:
        evaluated.put(run.work(trials, pause=0.02))


class SharedStorageContract(StorageContract):
    """Laws of databases that several runs work on at the same time."""

    @pytest.mark.parametrize("trials", [7, 100])
    def test_nothing_is_evaluated_twice_and_all_once(self, url: str, study: str, trials: int, tmp_path: Path) -> None:
        """Three processes with the same seed start at the same time, so that they propose the same candidates."""
        context = multiprocessing.get_context("spawn")
        evaluated = context.Queue()
        processes = [
            context.Process(target=_one_of_several, args=(url, study, tmp_path / name, trials, evaluated))
            for name in "abc"
        ]
        for process in processes:
            process.start()
        done = [evaluated.get(timeout=120) for _ in processes]
        for process in processes:
            process.join()
        with OpenRun(url, study, tmp_path / "d") as run:
            found = run.record.trials
            complete = [t for t in found if t.state == COMPLETE]
            assert sorted(n for numbers in done for n in numbers) == [t.number for t in complete]
            assert len({t.candidate for t in complete}) == len(complete) == min(trials, 12)
            assert {t.state for t in found} <= {COMPLETE, WITHDRAWN}
            assert [t.number for t in found] == list(range(len(found)))

    def test_the_lower_number_has_the_candidate(self, open_run: Open) -> None:
        a, b = open_run("a"), open_run("b")
        assert a.start(0) == 0
        assert b.start(0) == 1
        assert _states(b) == [RUNNING, WITHDRAWN]
        assert "trial 0" in (b.record.trials[1].reason or "")
        assert b.start(1) == 2
        a.record.sync()
        assert _states(a) == [RUNNING, WITHDRAWN, RUNNING]
        assert [a.record.is_own(n) for n in range(3)] == [True, False, False]

    def test_trials_that_begin_together_have_seeds_of_their_own(self, open_run: Open) -> None:
        a, b, c = open_run("a"), open_run("b"), open_run("c")
        seeds = [run.record.trials[run.start(position)].seed for position, run in enumerate((a, b))]
        c.record.sync()
        assert [t.seed for t in c.record.trials] == seeds
        assert seeds[0] != seeds[1]

    def test_a_trial_that_was_recorded_twice_counts_once(self, open_run: Open, url: str, study: str) -> None:
        """Optuna creates a trial twice if the connection breaks after the first write."""
        a, b = open_run("a"), open_run("b")
        a.start(0)
        stored = optuna.load_study(study_name=study, storage=url)
        (begun,) = stored.trials
        a.record.withdraw(0, "so that the candidate is free")
        stored.add_trial(begun)
        assert a.start(0) == 2
        b.record.sync()
        for run in (a, b):
            assert _states(run) == [WITHDRAWN, WITHDRAWN, RUNNING]

    def test_a_lost_trial_is_begun_again_once(self, open_run: Open, url: str, study: str, tmp_path: Path) -> None:
        with OpenRun(url, study, tmp_path / "a") as run:
            lost = run.search().ask()
        assert lost is not None
        # Its heartbeats have ended, and three drivers notice that at about the same time.
        answers: list[Task | None] = []
        runs = [open_run(name) for name in "bcd"]
        searches = [run.search(trials=1) for run in runs]
        assert [s.ask() for s in searches] == [None] * 3, "the budget is one trial, and that is running"
        assert all(s.waits() for s in searches)
        done = threading.Event()

        def take_over(own: ArchitectureSearch) -> None:
            def asked() -> bool:
                answers.append(own.ask())
                return answers[-1] is not None or done.is_set()

            _until(asked)
            done.set()

        _together(*(partial(take_over, own) for own in searches))
        begun = [task for task in answers if task is not None]
        assert [task.candidate for task in begun] == [lost.candidate]
        for run in runs:
            run.record.sync()
            assert [state for state in _states(run) if state != WITHDRAWN] == [LOST, RUNNING]
            assert "driver" in (run.record.trials[0].error or "")
        again = open_run("a").search(trials=1)
        assert again.ask() is None, "it accepts that another one has it"
        assert again.waits()

    def test_a_trial_without_any_heartbeat_is_lost(self, open_run: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        a, b = open_run("a"), open_run("b")
        monkeypatch.setattr(a.heartbeat, "add", lambda trial_id: None)
        a.start(0)
        _until(lambda: _synced(b) == [LOST])

    def test_trials_with_heartbeats_are_not_taken_over(self, open_run: Open) -> None:
        a, b = open_run("a"), open_run("b")
        a.start(0)
        a.start(1)
        a.record.pause(1)
        end = time.monotonic() + 4 * _BEAT
        while time.monotonic() < end:
            assert _synced(b) == [RUNNING, PAUSED]
            time.sleep(0.2)

    @pytest.mark.parametrize("ending", ["complete", "failed", "paused", "an epoch"])
    def test_a_result_that_comes_too_late_does_not_count(
        self, open_run: Open, url: str, study: str, ending: str
    ) -> None:
        a, b = open_run("a"), open_run("b")
        late = a.search()
        task = late.ask()
        assert task is not None
        a.heartbeat.discard(_trial_id(SharedStudy(url, study, _BEAT), task.number))  # as of a suspended process
        _until(lambda: _synced(b) == [LOST])
        other = b.search()
        again = other.ask()
        assert again is not None
        assert again.candidate == task.candidate
        if ending == "an epoch":
            assert late.report(task.number, 1, {"val_accuracy": 0.5}) is False
        elif ending == "paused":
            assert a.record.pause(task.number).state == LOST
        late.tell(task.number, Failure("no") if ending == "failed" else Outcome(_METRICS))
        other.tell(again.number, Outcome(_METRICS))
        for run in (a, b):
            assert _synced(run) == [LOST, COMPLETE]
        following = late.ask()
        assert following is not None
        assert following.candidate != task.candidate

    def test_only_one_of_two_ends_a_trial(self, url: str, study: str) -> None:
        """A driver finishes a trial while another one considers it lost, 20 times."""
        shared = [SharedStudy(url, study, _BEAT) for _ in range(2)]
        for opened in shared:
            opened.join(_OBJECTIVES, _SETTINGS)
        database = shared[0].database
        for _ in range(20):
            trial_id = database.create_new_trial(database.get_study_id_from_name(study))
            ended: list[TrialState] = []
            barrier = threading.Barrier(2)
            end = partial(_end, trial_id, ended, barrier)
            complete = partial(end, shared[0], TrialState.COMPLETE, [1.0, 2.0])
            _together(complete, partial(end, shared[1], TrialState.FAIL, None))
            assert ended == [database.get_trial(trial_id).state]

    def test_files_of_a_finished_trial_reach_the_others(self, open_run: Open) -> None:
        runs = [open_run("a"), open_run("b")]
        content = bytes(range(256)) * 40_000  # several chunks
        for position, run in enumerate(runs):
            number = run.start(position)
            folder = run.directory.trial_directory(number)
            (folder / "model.onnx").write_bytes(content)
            (folder / "empty").touch()
            run.record.finish(number, Outcome(_METRICS, {"model": "model.onnx", "other": "empty"}))
        runs[0].record.sync()
        for run in runs:
            for trial in run.record.trials:
                run.record.fetch(trial)
                for name, expected in (("model.onnx", content), ("empty", b"")):
                    assert (run.directory.path / "trials" / f"{trial.number:05d}" / name).read_bytes() == expected

    def test_a_damaged_file_is_not_used(self, open_run: Open, url: str, study: str) -> None:
        from sqlalchemy import create_engine, text

        a, b = open_run("a"), open_run("b")
        a.start(0)
        folder = a.directory.trial_directory(0)
        (folder / "model.onnx").write_bytes(study.encode())
        a.record.finish(0, Outcome(_METRICS, {"model": "model.onnx"}))
        with create_engine(url).begin() as connection:
            connection.execute(
                text("UPDATE slimsearch_artifacts SET content = :new WHERE content = :old"),
                {"new": b"torn", "old": study.encode()},
            )
        b.record.sync()
        with pytest.raises(SlimsearchError, match=rf"'trials/00000/model.onnx' in study '{study}' is damaged"):
            b.record.fetch(b.record.trials[0])
        assert not list((b.directory.path / "trials" / "00000").iterdir())
        with create_engine(url).begin() as connection:
            connection.execute(text("DELETE FROM slimsearch_artifacts WHERE content = :torn"), {"torn": b"torn"})
        with pytest.raises(SlimsearchError, match=rf"'trials/00000/model.onnx' is no longer in study '{study}'"):
            b.record.fetch(b.record.trials[0])

    def test_a_value_that_drivers_share_is_made_once(self, url: str, study: str) -> None:
        studies = [SharedStudy(url, study, _BEAT) for _ in range(3)]
        for opened in studies:
            opened.join(_OBJECTIVES, _SETTINGS)
        makers: list[str] = []
        found: list[dict[str, str]] = []

        def make(name: str) -> dict[str, str]:
            makers.append(name)
            time.sleep(0.5)  # the others ask meanwhile
            return {"by": name}

        def ask(opened: SharedStudy, name: str) -> None:
            found.append(opened.once("figures", name, lambda: make(name), lambda: None))

        _together(*(partial(ask, opened, name) for opened, name in zip(studies, "abc", strict=True)))
        assert len(makers) == 1
        assert found == [{"by": makers[0]}] * 3
        assert studies[0].agree("other: maker", "lost") == "lost"
        other = studies[1].once("other", "b", lambda: {"by": "b"}, lambda: None)
        assert other == {"by": "b"}, "nobody waits for a lost driver"

    def test_a_study_of_another_program_is_refused(self, url: str, study: str) -> None:
        shared = SharedStudy(url, study, _BEAT)
        optuna.create_study(study_name=study, storage=shared.database).add_trial(optuna.create_trial(value=1.0))
        with pytest.raises(SlimsearchError, match="choose another --study"):
            shared.join((replace(_OBJECTIVES[0], direction="minimize"),), _SETTINGS)

    def test_a_driver_may_join_while_another_one_begins_its_first_trial(
        self, open_run: Open, url: str, study: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other driver starts it after the study was opened and before its settings are compared."""
        own = SharedStudy(url, study, _BEAT)
        write = own.artifacts.write

        def late(*arguments: Any) -> None:
            open_run("b").start(0)
            monkeypatch.setattr(own.artifacts, "write", write)
            write(*arguments)

        monkeypatch.setattr(own.artifacts, "write", late)
        assert own.join(_OBJECTIVES, _SETTINGS) == _SETTINGS
        assert len(own.study.trials) == 1


def _states(run: OpenRun) -> list[str]:
    return [trial.state for trial in run.record.trials]


def _synced(run: OpenRun) -> list[str]:
    """The states of all trials in the storage."""
    run.record.sync()
    return _states(run)


def _trial_id(shared: SharedStudy, number: int) -> int:
    study_id = shared.database.get_study_id_from_name(shared.name)
    return shared.database.get_trial_id_from_study_id_trial_number(study_id, number)


def _end(
    trial_id: int, ended: list[TrialState], barrier: threading.Barrier, shared: SharedStudy, state: TrialState,
    values: list[float] | None,
) -> None:  # fmt: skip
    barrier.wait()
    with suppress(UpdateFinishedTrialError):
        shared.database.set_trial_state_values(trial_id, state, values)
        ended.append(state)


def _until(done: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def _together(*functions: Callable[[], object]) -> None:
    """Call all functions in parallel threads."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
