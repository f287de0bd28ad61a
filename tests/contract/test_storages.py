"""Laws of every storage of a study: what is recorded comes back, and of several drivers one has each candidate."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective, Outcome, Task
from slimsearch.loop.search import ArchitectureSearch, Budget
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.shared.driver import Driver
from slimsearch.record.shared.storage import normalised
from slimsearch.record.shared.study import SharedStudy
from slimsearch.record.trial import COMPLETE, FAILED, LOST, PAUSED, RULED_OUT, RUNNING, SEARCH, WITHDRAWN
from slimsearch.search_spaces import Candidate, ChoiceSpace
from slimsearch.strategies import Failure
from slimsearch.strategies.samplers import load_sampler
from tests.databases import PostgreSQL, postgresql

SPACE = ChoiceSpace({"a": [0, 1, 2, 3], "b": ["x", "y", [1, 2]]})
OBJECTIVES = (Objective("val_accuracy", "maximize"), Objective("size_kib", "minimize"))
METRICS = {"val_accuracy": 0.1 + 0.2, "size_kib": 3.5}
POSTGRES = pytest.param("postgresql", marks=pytest.mark.postgres)
BEAT = 1
TERMS = {"options": {"trials": 12}, "choices": {}, "dataset": ""}

Open = Callable[[str], Record]


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[PostgreSQL]:
    with postgresql() as found:
        yield found


@pytest.fixture
def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str | None:
    if kind == "journal":
        return None
    if kind == "sqlite":
        return normalised(f"sqlite:///{tmp_path}/study.db")
    return normalised(request.getfixturevalue("cluster").url())


@pytest.fixture
def open_record(url: str | None, tmp_path: Path) -> Iterator[Open]:
    """A record as the driver of a run directory has it; all is closed at the end."""
    with ExitStack() as stack:
        yield lambda name="a": stack.enter_context(Opened(url, tmp_path / name))


class Opened:
    """The record of the run directory `path`."""

    def __init__(self, url: str | None, path: Path) -> None:
        self._url, self._path = url, path
        self._stack = ExitStack()

    def __enter__(self) -> Record:
        new = not (self._path / "config.yaml").exists()
        directory = self._stack.enter_context(RunDirectory(self._path, create=new))
        directory.config.write_text("format: 1\n")
        if self._url is None:
            return Record(directory.open_study(OBJECTIVES), SPACE, OBJECTIVES)
        shared = SharedStudy(self._url, "study", BEAT)
        shared.join(OBJECTIVES, TERMS)
        driver = self._stack.enter_context(Driver(shared, directory.identity(), "here", directory.path))
        return Record(shared.study, SPACE, OBJECTIVES, driver=driver)

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def start(record: Record, place: int) -> int:
    point = list(SPACE.grid())[place]
    return record.start(Candidate(point), kind=SEARCH, fidelity=3, seed=5).number


def search(record: Record, directory: Path, trials: int = 12) -> ArchitectureSearch:
    class Folder:
        path = directory

        def trial_directory(self, number: int) -> Path:
            return directory

    return ArchitectureSearch(
        SPACE, load_sampler("random"), Ranking(OBJECTIVES), record, Folder(),  # type: ignore[arg-type]
        Budget(trials, 3), seed=0,
    )  # fmt: skip


def until(done: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


@pytest.mark.parametrize("kind", ["journal", "sqlite", POSTGRES])
class TestOfAnyStorage:
    def test_what_is_recorded_comes_back(self, url: str | None, tmp_path: Path) -> None:
        with Opened(url, tmp_path / "a") as record:
            for place in range(7):
                assert start(record, place) == place
            record.epoch(0, 0, {"size_kib": 3.5})
            record.epoch(0, 1, {"val_accuracy": 0.5, "train_loss": 1.0})
            record.finish(0, Outcome(METRICS), violations=[0.5], reason="too large")
            record.fail(1, "ValueError: it gave up")
            record.finish(2, Outcome({"size_kib": 9.0}), state=RULED_OUT, reason="too large")
            record.epoch(3, 2, {"val_accuracy": 0.25})
            record.pause(3)
            record.pause(4)
            record.resume(4)
            record.epoch(5, 1, {"val_accuracy": 0.75})
            record.record_final({0: {"test_accuracy": 1 / 3}})
            before = list(record.trials)
        with Opened(url, tmp_path / "a") as record:  # as a new process would
            after = list(record.trials)
        assert [t.state for t in after] == [COMPLETE, FAILED, RULED_OUT, PAUSED, RUNNING, RUNNING, RUNNING]
        assert [(t.candidate, t.seed, t.metrics, t.error, t.reason, t.final) for t in before] == [
            (t.candidate, t.seed, t.metrics, t.error, t.reason, t.final) for t in after
        ]
        assert len({t.seed for t in after}) == len(after)
        assert [t.curve for t in before][:5] == [t.curve for t in after][:5]
        assert after[5].curve == ({"epoch": 1.0, "val_accuracy": 0.75},)
        assert after[0].final == {"test_accuracy": 1 / 3}

    def test_a_resumed_search_runs_its_own_again(self, url: str | None, tmp_path: Path) -> None:
        with Opened(url, tmp_path / "a") as record:
            first = search(record, tmp_path).ask()
        with Opened(url, tmp_path / "a") as record:
            again = search(record, tmp_path).ask()
        assert first is not None
        assert again is not None
        assert (again.number, again.candidate, again.seed) == (first.number, first.candidate, first.seed)

    def test_every_candidate_of_a_space_once(self, url: str | None, tmp_path: Path) -> None:
        with Opened(url, tmp_path / "a") as record:
            work(search(record, tmp_path, 100))
            assert len({t.candidate for t in record.trials}) == len(record.trials) == 12


def work(searching: ArchitectureSearch, pause: float = 0.0) -> list[int]:
    """Do what a search asks for, as the only worker."""
    done = []
    while True:
        task = searching.ask()
        if task is None and not searching.waits():
            return done
        if task is None:
            searching._record.wait()
            continue
        time.sleep(pause)
        searching.tell(task.number, Outcome(METRICS))
        done.append(task.number)


def one_of_several(url: str, path: Path, trials: int, evaluated: multiprocessing.Queue[list[int]]) -> None:
    with Opened(url, path) as record:
        evaluated.put(work(search(record, path, trials), 0.02))


@pytest.mark.parametrize("kind", ["sqlite", POSTGRES])
class TestOfSeveralDrivers:
    @pytest.mark.parametrize("trials", [7, 100])
    def test_nothing_is_evaluated_twice_and_all_once(self, url: str, trials: int, tmp_path: Path) -> None:
        """Three processes that begin at the same time, with the same seed: they propose the same candidates."""
        context = multiprocessing.get_context("spawn")
        evaluated: multiprocessing.Queue[list[int]] = context.Queue()
        paths = [tmp_path / name for name in "abc"]
        processes = [context.Process(target=one_of_several, args=(url, path, trials, evaluated)) for path in paths]
        for process in processes:
            process.start()
        done = [evaluated.get(timeout=120) for _ in processes]
        for process in processes:
            process.join()
        with Opened(url, tmp_path / "d") as record:
            complete = [t for t in record.trials if t.state == COMPLETE]
            assert sorted(n for numbers in done for n in numbers) == [t.number for t in complete]
            assert len({t.candidate for t in complete}) == len(complete) == min(trials, 12)
            assert {t.state for t in record.trials} <= {COMPLETE, WITHDRAWN}
            assert [t.number for t in record.trials] == list(range(len(record.trials)))

    def test_the_lower_number_has_the_candidate(self, open_record: Open) -> None:
        a, b = open_record("a"), open_record("b")
        assert start(a, 0) == 0
        assert start(b, 0) == 1
        assert [t.state for t in b.trials] == [RUNNING, WITHDRAWN]
        assert "trial 0" in (b.trials[1].reason or "")
        assert start(b, 1) == 2
        a.sync()
        assert [t.state for t in a.trials] == [RUNNING, WITHDRAWN, RUNNING]
        assert [a.is_own(n) for n in range(3)] == [True, False, False]

    def test_one_that_begins_together_with_others_has_the_seed_of_its_number(self, open_record: Open) -> None:
        a, b, c = open_record("a"), open_record("b"), open_record("c")
        first, second = list(SPACE.grid())[:2]
        seeds = [
            record.start(Candidate(point), kind=SEARCH, fidelity=3, seed=5).seed
            for record, point in ((a, first), (b, second))
        ]
        c.sync()
        assert [t.seed for t in c.trials] == seeds
        assert seeds[0] != seeds[1]

    def test_what_was_recorded_twice_counts_once(self, open_record: Open, url: str) -> None:
        """Optuna creates a trial once more where the connection breaks after the trial is there."""
        a, b = open_record("a"), open_record("b")
        start(a, 0)
        study = optuna.load_study(study_name="study", storage=url)
        (begun,) = study.trials
        a.withdraw(0, "so that the candidate is free")
        study.add_trial(begun)
        assert start(a, 0) == 2
        b.sync()
        for record in (a, b):
            assert [t.state for t in record.trials] == [WITHDRAWN, WITHDRAWN, RUNNING]

    def test_a_lost_trial_is_begun_again_once(self, url: str, tmp_path: Path) -> None:
        with Opened(url, tmp_path / "a") as record:
            lost = search(record, tmp_path).ask()
        assert lost is not None
        # No heart beats for it any more, and three drivers see so at about the same time.
        told: list[Task | None] = []
        with ExitStack() as stack:
            records = [stack.enter_context(Opened(url, tmp_path / name)) for name in "bcd"]
            searches = [search(record, tmp_path, trials=1) for record in records]
            assert [s.ask() for s in searches] == [None] * 3, "the budget is one trial, and that is running"
            assert all(s.waits() for s in searches)

            def take_over(own: ArchitectureSearch) -> None:
                until(lambda: told.append(own.ask()) or told[-1] is not None or done.is_set())
                done.set()

            done = threading.Event()
            threads = [threading.Thread(target=take_over, args=(s,)) for s in searches]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            begun = [task for task in told if task is not None]
            assert [task.candidate for task in begun] == [lost.candidate]
            for record in records:
                record.sync()
                assert [t.state for t in record.trials if t.state != WITHDRAWN] == [LOST, RUNNING]
                assert "driver" in (record.trials[0].error or "")
        with Opened(url, tmp_path / "a") as record:
            again = search(record, tmp_path, trials=1)
            assert again.ask() is None, "it accepts that another one has it"
            assert again.waits()

    def test_one_that_never_gave_a_sign_of_life_is_lost_too(self, open_record: Open, url: str, tmp_path: Path) -> None:
        a, b = open_record("a"), open_record("b")
        a._driver.heartbeat.add = lambda trial_id: None  # type: ignore[union-attr, method-assign]
        start(a, 0)
        until(lambda: b.sync() or (bool(b.trials) and b.trials[0].state == LOST))

    def test_what_is_alive_is_not_taken_over(self, open_record: Open) -> None:
        a, b = open_record("a"), open_record("b")
        start(a, 0)
        start(a, 1)
        a.pause(1)
        end = time.monotonic() + 4 * BEAT
        while time.monotonic() < end:
            b.sync()
            time.sleep(0.2)
        assert [t.state for t in b.trials] == [RUNNING, PAUSED]

    @pytest.mark.parametrize("ending", ["complete", "failed", "paused", "an epoch"])
    def test_a_result_that_comes_too_late_does_not_count(self, open_record: Open, ending: str, tmp_path: Path) -> None:
        a, b = open_record("a"), open_record("b")
        late = search(a, tmp_path)
        task = late.ask()
        assert task is not None
        a._driver.heartbeat.discard(a._ids[task.number])  # type: ignore[union-attr] - as of a suspended process
        until(lambda: b.sync() or b.trials[0].state == LOST)
        other = search(b, tmp_path)
        again = other.ask()
        assert again is not None
        assert again.candidate == task.candidate
        if ending == "an epoch":
            assert late.report(task.number, 1, {"val_accuracy": 0.5}) is False
        elif ending == "paused":
            assert a.pause(task.number).state == LOST
        late.tell(task.number, Failure("no") if ending == "failed" else Outcome(METRICS))
        other.tell(again.number, Outcome(METRICS))
        for record in (a, b):
            record.sync()
            assert [t.state for t in record.trials] == [LOST, COMPLETE]
        assert a._driver is not None
        following = late.ask()
        assert following is not None
        assert following.candidate != task.candidate

    def test_only_one_of_two_ends_a_trial(self, url: str, tmp_path: Path) -> None:
        """Again and again a driver finishes a trial while another one takes it for lost."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        shared = [SharedStudy(url, "study", BEAT) for _ in range(2)]
        for study in shared:
            study.join(OBJECTIVES, TERMS)
        database = shared[0].database
        for _ in range(20):
            trial_id = database.create_new_trial(database.get_study_id_from_name("study"))
            ended: list[TrialState] = []
            barrier = threading.Barrier(2)

            def end(study: SharedStudy, state: TrialState, trial_id: int, ended=ended, barrier=barrier) -> None:
                barrier.wait()
                try:
                    study.database.set_trial_state_values(
                        trial_id, state, [1, 2] if state == TrialState.COMPLETE else None
                    )
                    ended.append(state)
                except UpdateFinishedTrialError:
                    pass

            threads = [
                threading.Thread(target=end, args=(study, state, trial_id))
                for study, state in zip(shared, (TrialState.COMPLETE, TrialState.FAIL), strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert ended == [shared[0].database.get_trial(trial_id).state]

    def test_files_of_a_finished_trial_reach_the_others(self, open_record: Open, tmp_path: Path) -> None:
        a, b = open_record("a"), open_record("b")
        content = bytes(range(256)) * 40_000  # several parts
        for record, folder in ((a, "a"), (b, "b")):
            number = start(record, 0 if folder == "a" else 1)
            files = tmp_path / folder / "trials" / f"{number:05d}"
            files.mkdir(parents=True)
            (files / "model.onnx").write_bytes(content)
            (files / "empty").touch()
            record.finish(number, Outcome(METRICS, {"model": "model.onnx", "other": "empty"}))
        a.sync()
        for record, folder in ((a, "a"), (b, "b")):
            for trial in record.trials:
                record.fetch(trial)
                for name, expected in (("model.onnx", content), ("empty", b"")):
                    assert (tmp_path / folder / "trials" / f"{trial.number:05d}" / name).read_bytes() == expected

    def test_a_damaged_file_is_not_used(self, open_record: Open, url: str, tmp_path: Path) -> None:
        from sqlalchemy import create_engine, text

        a, b = open_record("a"), open_record("b")
        files = tmp_path / "a" / "trials" / "00000"
        files.mkdir(parents=True)
        (files / "model.onnx").write_bytes(b"whole")
        start(a, 0)
        a.finish(0, Outcome(METRICS, {"model": "model.onnx"}))
        with create_engine(url).begin() as connection:
            connection.execute(
                text("UPDATE slimsearch_artifacts SET content = :new WHERE content = :old"),
                {"new": b"torn", "old": b"whole"},
            )
        b.sync()
        with pytest.raises(SlimsearchError, match=r"'trials/00000/model.onnx' in study 'study' is damaged"):
            b.fetch(b.trials[0])
        assert not list((tmp_path / "b" / "trials" / "00000").iterdir())
        with create_engine(url).begin() as connection:
            connection.execute(text("DELETE FROM slimsearch_artifacts"))
        with pytest.raises(SlimsearchError, match=r"'trials/00000/model.onnx' is no longer in study 'study'"):
            b.fetch(b.trials[0])

    def test_what_is_done_once(self, url: str) -> None:
        studies = [SharedStudy(url, "study", BEAT) for _ in range(3)]
        for study in studies:
            study.join(OBJECTIVES, TERMS)
        made, found = [], []

        def make(name: str) -> Callable[[], dict[str, str]]:
            return lambda: made.append(name) or time.sleep(0.5) or {"by": name}  # type: ignore[func-returns-value]

        def ask(study: SharedStudy, name: str) -> None:
            found.append(study.once("figures", name, make(name), lambda: None))

        threads = [threading.Thread(target=ask, args=(s, n)) for s, n in zip(studies, "abc", strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 1
        assert found == [{"by": made[0]}] * 3
        assert studies[0].agree("other: maker", "lost") == "lost"
        assert studies[1].once("other", "b", make("b"), lambda: None) == {"by": "b"}, "nobody waits for a lost driver"

    def test_a_study_of_something_else_is_refused(self, url: str) -> None:
        import optuna

        study = SharedStudy(url, "study", BEAT)
        optuna.create_study(study_name="study", storage=study.database).add_trial(optuna.create_trial(value=1.0))
        with pytest.raises(SlimsearchError, match="choose another --study"):
            study.join((replace(OBJECTIVES[0], direction="minimize"),), TERMS)

    def test_who_joins_while_another_one_begins_its_first_trial_is_not_refused(
        self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = SharedStudy(url, "study", BEAT)
        agreed = own._agreed

        def slowly(name: str) -> object:
            found = agreed(name)
            monkeypatch.setattr(own, "_agreed", agreed)
            with Opened(url, tmp_path / "b") as record:
                start(record, 0)
            return found

        monkeypatch.setattr(own, "_agreed", slowly)
        assert own.join(OBJECTIVES, TERMS) == TERMS
