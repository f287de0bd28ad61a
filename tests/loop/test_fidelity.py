"""Trials that pause, go on and are ended early, with a record on disk and no training."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import CHECKPOINT, Limit, Objective, Outcome, Task
from slimsearch.loop.fidelity import Fidelity
from slimsearch.loop.search import ArchitectureSearch, Budget
from slimsearch.loop.stopping import refuse_if_nothing_is_left
from slimsearch.loop.supernet_phase import FinalistTraining
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import COMPLETE, FAILED, PAUSED, RULED_OUT, RUNNING, STOPPED, Trial
from slimsearch.search_spaces import ChoiceSpace
from slimsearch.strategies import Failure, Recorded
from slimsearch.strategies.samplers import load_sampler
from slimsearch.strategies.schedulers import Decision, Scheduler, TrialProgress, load_scheduler

EPOCHS, TRIALS = 8, 16
SPACE = ChoiceSpace({"width": list(range(6)), "depth": list(range(6))})
ACCURACY, SIZE = Objective("val_accuracy", "maximize"), Objective("size_kib", "minimize")
ONE, TWO = Ranking((ACCURACY,)), Ranking((ACCURACY, SIZE))
HALVING = ["asha:eta=2", "successive_halving:eta=2", "hyperband:eta=2", "asha:eta=2+dominated:min_complete=5"]
DOMINATED = "dominated:min_complete=5"


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The computer itself stays on; waiting for its disk at each write takes most of the time."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


class Cut(Exception):
    """The process was killed."""


class Watched:
    """A scheduler, and the trials that it was last shown."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.trials: dict[int, TrialProgress] = {}

    def after_epoch(self, trial: TrialProgress, trials: Sequence[TrialProgress], epochs: int) -> Decision:
        return self._scheduler.after_epoch(trial, trials, epochs)

    def resume(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> int | None:
        self.trials = {trial.number: trial for trial in trials}
        return self._scheduler.resume(trials, epochs, more)

    def may_begin(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> bool:
        return self._scheduler.may_begin(trials, epochs, more)


def opened(
    path: Path, scheduler: str | Scheduler, ranking: Ranking, *, deadline: float | None = None, **options: Any
) -> tuple[RunDirectory, ArchitectureSearch, Record]:
    new = not (path / "config.yaml").exists()
    directory = RunDirectory(path, create=new)
    if new:
        directory.config.write_text("format: 1")
    record = Record(directory.open_study(ranking.objectives), SPACE, ranking.objectives)
    budget = Budget(options.pop("trials", TRIALS), EPOCHS, deadline, options.pop("retries", 1))
    scheduler = load_scheduler(scheduler) if isinstance(scheduler, str) else scheduler
    fidelity = Fidelity(scheduler, ranking, EPOCHS, ("size_kib",))
    search = ArchitectureSearch(
        SPACE, load_sampler("random"), ranking, record, directory, budget, seed=3, fidelity=fidelity, **options
    )
    return directory, search, record


def accuracy(task: Task, epoch: int) -> float:
    """Learning curves that cross, the same in every process."""
    rng = np.random.default_rng(list(task.candidate.architecture.values()))
    last, speed = rng.uniform(0.5, 1), rng.uniform(0.5, 3)
    return float(last * (1 - np.exp(-speed * epoch)) + 0.001 * rng.random())


def known(task: Task) -> dict[str, float]:
    return {"size_kib": float(1 + sum(task.candidate.architecture.values())), "latency_ms": time.monotonic()}


def metrics(task: Task, epoch: int) -> dict[str, float]:
    return {"val_accuracy": accuracy(task, epoch), "val_loss": 1 - accuracy(task, epoch), "train_loss": 0.5}


@dataclass
class Fake:
    """Workers that report epochs from where a task is on, in an order that `seed` decides.

    Attributes:
        cut_at: the step before which the process is killed.
        dies: whether the worker dies before epoch `epoch` of trial `number`, asked once for each.
    """

    search: Any
    count: int = 1
    seed: int = 0
    cut_at: int | None = None
    dies: set[tuple[int, int]] = field(default_factory=set)
    epochs: list[tuple[int, int]] = field(default_factory=list)
    begun: list[tuple[int, int]] = field(default_factory=list)
    steps: int = 0

    def run(self) -> Fake:
        order = random.Random(self.seed)
        running: list[Iterator[None]] = []
        while True:
            while len(running) < self.count and (task := self._step(self.search.ask)) is not None:
                self.begun.append((task.number, task.epochs_done))
                running.append(self._train(task))
            if not running:
                return self
            worker = order.choice(running)
            if next(worker, "done") == "done":
                running.remove(worker)

    def _train(self, task: Task) -> Iterator[None]:
        (task.directory / CHECKPOINT).touch()
        if not self._step(self.search.report, task.number, 0, known(task)):
            self._step(self.search.tell, task.number, Outcome(known(task)))
            return
        yield
        for epoch in range(task.epochs_done + 1, task.fidelity + 1):
            if (task.number, epoch) in self.dies:
                self.dies.remove((task.number, epoch))
                self._step(self.search.tell, task.number, Failure("its worker process died", worker_died=True))
                return
            self.epochs.append((task.number, epoch))
            go_on = self._step(self.search.report, task.number, epoch, metrics(task, epoch))
            yield
            if not go_on:
                self._step(self.search.tell, task.number, Outcome(known(task)))
                return
        (task.directory / CHECKPOINT).unlink()
        self._step(self.search.tell, task.number, Outcome({**known(task), **metrics(task, task.fidelity)}))

    def _step(self, call: Any, *arguments: Any) -> Any:
        if self.steps == self.cut_at:
            raise Cut
        self.steps += 1
        return call(*arguments)


def ends(record: Record) -> list[tuple[Any, ...]]:
    """What became of each trial; latency is never twice the same."""
    return [(t.candidate, t.state, [p["val_accuracy"] for p in t.curve], t.reason) for t in record.trials]


def optuna_states(path: Path) -> list[str]:
    import optuna

    backend = optuna.storages.journal.JournalFileBackend(str(path / "study.journal"))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    return [t.state.name for t in study.trials]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("ranking", [ONE, TWO], ids=["one", "two"])
@pytest.mark.parametrize("scheduler", HALVING)
def test_whole_run(scheduler: str, ranking: Ranking, workers: int, tmp_path: Path) -> None:
    directory, search, record = opened(tmp_path / "run", scheduler, ranking)
    with directory:
        fake = Fake(search, workers).run()
        assert len(record.trials) == TRIALS
        assert {t.state for t in record.trials} == {COMPLETE, STOPPED}
        assert len(fake.epochs) == len(set(fake.epochs)) < TRIALS * EPOCHS
        for trial in record.trials:
            assert [e for n, e in fake.epochs if n == trial.number] == list(range(1, len(trial.curve) + 1))
            assert (len(trial.curve) == EPOCHS) == (trial.state == COMPLETE)
            assert trial.metrics["val_accuracy"] == trial.curve[-1]["val_accuracy"]
            assert trial.state == COMPLETE or trial.reason
            assert not (directory.trial_directory(trial.number) / CHECKPOINT).exists()
        continued = [(number, done) for number, done in fake.begun if done]
        assert continued
        assert len({(number, done) for number, done in fake.begun}) == len(fake.begun), "none is begun anew"
    assert sorted(set(optuna_states(tmp_path / "run"))) == ["COMPLETE", "PRUNED"]


@pytest.mark.parametrize("ranking", [ONE, TWO], ids=["one", "two"])
def test_dominated_ends_some_and_pauses_none(ranking: Ranking, tmp_path: Path) -> None:
    directory, search, record = opened(tmp_path / "run", DOMINATED, ranking, trials=30)
    with directory:
        fake = Fake(search, 2).run()
        assert [done for _, done in fake.begun] == [0] * 30
        states = [t.state for t in record.trials]
        assert set(states) == {COMPLETE, STOPPED}
        assert all(": no longer worth it" in (t.reason or "") for t in record.trials if t.state == STOPPED)
        stopped = {t.number for t in record.trials if t.state == STOPPED}
        assert not stopped & {t.number for t in ranking.front(record.trials)}
    assert "RUNNING" not in optuna_states(tmp_path / "run")


@pytest.mark.parametrize("ranking", [ONE, TWO], ids=["one", "two"])
@pytest.mark.parametrize("scheduler", [*HALVING, DOMINATED])
def test_cut_run_ends_as_the_uninterrupted_one(scheduler: str, ranking: Ranking, tmp_path: Path) -> None:
    directory, search, record = opened(tmp_path / "whole", scheduler, ranking)
    with directory:
        steps = Fake(search).run().steps
        expected = ends(record)
    for cut_at in random.Random(scheduler).sample(range(1, steps), 3):
        path = tmp_path / f"cut{cut_at}"
        directory, search, record = opened(path, scheduler, ranking)
        with directory:
            first = Fake(search, cut_at=cut_at)
            with pytest.raises(Cut):
                first.run()
            before = {t.number: t for t in record.trials}
        directory, search, record = opened(path, scheduler, ranking)
        with directory:
            for trial in record.trials:
                was = before[trial.number]
                assert trial.state == was.state
                assert trial.known == was.known
                if trial.state != RUNNING:
                    assert trial.curve == was.curve
                assert [p["epoch"] for p in trial.curve] == [p["epoch"] for p in was.curve]
            second = Fake(search).run()
            assert ends(record) == expected, cut_at
            epochs = first.epochs + second.epochs
            # The epoch that a kill kept from being recorded is trained again, and no other one.
            assert len(epochs) - len(set(epochs)) <= 1


@pytest.mark.parametrize("ranking", [ONE, TWO, Ranking((Objective("val_loss", "minimize"), SIZE))], ids=str)
@pytest.mark.parametrize("scheduler", [*HALVING, DOMINATED])
def test_killed_again_and_again_with_several_workers(scheduler: str, ranking: Ranking, tmp_path: Path) -> None:
    moments = random.Random(scheduler)
    epochs: list[tuple[int, int]] = []
    for attempt in range(100):
        directory, search, record = opened(tmp_path / "run", scheduler, ranking)
        with directory:
            fake = Fake(search, 3, seed=attempt, cut_at=moments.randrange(5, 40))
            try:
                fake.run()
                break
            except Cut:
                pass
            finally:
                epochs += fake.epochs
    assert len(record.trials) == TRIALS
    assert {t.state for t in record.trials} <= {COMPLETE, STOPPED}
    assert len(epochs) - len(set(epochs)) <= attempt
    assert "RUNNING" not in optuna_states(tmp_path / "run")


@pytest.mark.parametrize("scheduler", HALVING[:3])
def test_epoch_that_a_kill_kept_from_being_recorded(scheduler: str, tmp_path: Path) -> None:
    """Its checkpoint was written: the training goes on behind it."""
    directory, search, record = opened(tmp_path / "run", scheduler, TWO)
    with directory:
        task = search.ask()
        assert task is not None
        search.report(task.number, 0, known(task))
    directory, search, record = opened(tmp_path / "run", scheduler, TWO)
    with directory:
        again = search.ask()
        assert again is not None
        search.report(again.number, 0, known(again))
        epoch = 2
        while search.report(again.number, epoch, metrics(again, epoch)):
            epoch += 1
        search.tell(again.number, Outcome(known(again)))
        assert record.trials[0].state == PAUSED
        fake = Fake(search).run()
        assert {t.state for t in record.trials} == {COMPLETE, STOPPED}
        assert all(first > epoch for number, first in fake.epochs if number == again.number)


def test_lost_checkpoint_is_no_second_report(tmp_path: Path) -> None:
    """A training, or a function of the user's, that begins anew where it was to go on."""
    directory, search, record = opened(tmp_path / "run", "asha:eta=2", TWO)
    with directory:

        class Anew:
            def __getattr__(self, name: str) -> Any:
                return getattr(search, name)

            def ask(self) -> Task | None:
                task = search.ask()
                return None if task is None else replace(task, epochs_done=0)

        Fake(Anew()).run()
        found = ends(record)
    directory, search, record = opened(tmp_path / "other", "asha:eta=2", TWO)
    with directory:
        Fake(search).run()
        assert ends(record) == found


@pytest.mark.parametrize("retries", [0, 1])
def test_worker_that_died_while_a_trial_was_continued(retries: int, tmp_path: Path) -> None:
    directory, search, record = opened(tmp_path / "whole", "asha:eta=2", ONE)
    with directory:
        whole = Fake(search).run()
        expected = ends(record)
    number, done = next((number, done) for number, done in whole.begun if done)
    directory, search, record = opened(tmp_path / "run", "asha:eta=2", ONE, retries=retries)
    with directory:
        fake = Fake(search, dies={(number, done + 1)}).run()
        assert not fake.dies
        assert record.trials[number].state == (FAILED if retries == 0 else record.trials[number].state)
        assert "running" not in {t.state for t in record.trials}
        if retries:
            assert fake.begun.count((number, done)) == 2
            assert ends(record) == expected


def test_worker_that_died_after_it_was_told_to_pause(tmp_path: Path) -> None:
    directory, search, record = opened(tmp_path / "run", "successive_halving:eta=2", ONE)
    with directory:
        task = search.ask()
        assert task is not None
        search.report(task.number, 0, known(task))
        assert not search.report(task.number, 1, metrics(task, 1))
        search.tell(task.number, Failure("its worker process died", worker_died=True))
        other = search.ask()
        assert other is not None
        assert other.number != task.number
        assert record.trials[task.number].state == PAUSED


@pytest.mark.parametrize("scheduler", HALVING)
def test_timeout_leaves_paused_trials_to_a_resumed_run(scheduler: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    directory, search, record = opened(path, scheduler, TWO)
    with directory:
        whole = Fake(search, cut_at=40)
        with pytest.raises(Cut):
            whole.run()
    directory, search, record = opened(path, scheduler, TWO, deadline=time.monotonic() - 1)
    with directory:
        Fake(search).run()  # only what was running
        assert RUNNING not in {t.state for t in record.trials}
        paused = {t.number: t for t in record.trials if t.state == PAUSED}
        assert paused
        if not any(t.state == COMPLETE for t in record.trials):
            with pytest.raises(SlimsearchError, match="no candidate was trained to the end: --timeout was over before"):
                refuse_if_nothing_is_left(TWO, record)
    directory, search, record = opened(path, scheduler, TWO)
    with directory:
        assert {t.number: t.curve for t in record.trials if t.state == PAUSED} == {
            n: t.curve for n, t in paused.items()
        }
        fake = Fake(search).run()
        assert {t.state for t in record.trials} == {COMPLETE, STOPPED}
        assert len(record.trials) == TRIALS
        assert all(done for number, done in fake.begun if number in paused)


@pytest.mark.parametrize("cut_at", [None, 30, 100])
def test_weighted_product(cut_at: int | None, tmp_path: Path) -> None:
    """Once its targets are fixed, all trials are compared by it, in this process as in a resumed one."""
    ranking = Ranking(TWO.objectives, weighted=True)
    told: list[dict[str, float]] = []
    options: dict[str, Any] = {"trials": 30, "on_targets": lambda targets: told.append(dict(targets)) or targets}
    watched = Watched(load_scheduler("asha:eta=2:min_epochs=4"))
    directory, search, record = opened(tmp_path / "whole", watched, ranking, **options)
    with directory:
        steps = Fake(search).run().steps
        expected = ends(record)
        assert told == [search.ranking.targets]
        product = search.ranking.product(())
        assert product is not None
        for trial in record.trials:
            point = {**trial.known, **trial.curve[-1]}
            assert watched.trials[trial.number].losses[-1] == (-product.score(point),)
    for at in [cut_at] if cut_at is not None else random.Random(0).sample(range(steps // 2, steps), 5):
        told.clear()
        path = tmp_path / f"cut{at}"
        directory, search, record = opened(path, "asha:eta=2:min_epochs=4", ranking, **options)
        with directory, pytest.raises(Cut):
            Fake(search, cut_at=at).run()
        fixed = replace(ranking, targets=told[0] if told else None)
        directory, search, record = opened(path, "asha:eta=2:min_epochs=4", fixed, **options)
        with directory:
            Fake(search).run()
            assert ends(record) == expected


def test_targets_that_a_kill_kept_from_being_told(tmp_path: Path) -> None:
    ranking = Ranking(TWO.objectives, weighted=True)
    directory, search, _ = opened(tmp_path / "run", "none", ranking, trials=12)
    with directory:
        Fake(search).run()
        targets = search.ranking.targets
    told: list[dict[str, float]] = []
    directory, search, _ = opened(
        tmp_path / "run", "none", ranking, trials=12, on_targets=lambda found: told.append(dict(found)) or found
    )
    with directory:
        assert told == [targets]
        assert search.ranking.targets == targets


def test_limits(tmp_path: Path) -> None:
    """What is ruled out is none of the scheduler's trials; what misses the accuracy comes last in its rung."""
    limits = (Limit("size_kib", 8.0, True, "--max-size-kib"), Limit("val_accuracy", 0.7, False, "--min-accuracy"))
    ranking = replace(TWO, limits=limits)
    directory, search, record = opened(tmp_path / "run", "asha:eta=2", ranking)
    with directory:
        Fake(search).run()
        states = [t.state for t in record.trials]
        assert states.count(COMPLETE) + states.count(STOPPED) == TRIALS
        assert RULED_OUT in states


def test_metrics_of_ones_own_after_each_epoch(tmp_path: Path) -> None:
    ranking = Ranking((Objective("energy", "minimize"),))
    path = tmp_path / "run"
    trials: list[Trial] = []
    for _ in range(2):
        directory, search, record = opened(path, "asha:eta=2", ranking, trials=4)
        with directory:
            task = search.ask()
            assert task is not None
            assert search.report(task.number, 0, {})
            if not trials:
                search.report(task.number, 1, {"energy": 3.0})
            trials = list(record.trials)
    assert trials[0].curve[0]["energy"] == 3.0


def test_nothing_to_compare(tmp_path: Path) -> None:
    directory, search, _ = opened(tmp_path / "run", "asha:eta=2", Ranking((Objective("energy", "minimize"),)))
    with directory:
        task = search.ask()
        assert task is not None
        search.report(task.number, 0, known(task))
        with pytest.raises(SlimsearchError, match=r"--scheduler compares .*, and none of energy is known then"):
            search.report(task.number, 1, metrics(task, 1))


@pytest.mark.parametrize("scheduler", HALVING)
def test_strategy_that_offers(scheduler: str, tmp_path: Path) -> None:
    """It closes the search before the budget is spent: what waits for more is then compared with what there is."""
    directory, search, record = opened(tmp_path / "run", scheduler, ONE, proposing=False, trials=100)
    with directory:

        class Offering:
            def __init__(self) -> None:
                self.points = [point for point, _ in zip(SPACE.grid(), range(11), strict=False)]

            def __getattr__(self, name: str) -> Any:
                return getattr(search, name)

            def ask(self) -> Task | None:
                task = search.ask()
                while task is None and self.points:
                    answer = search.offer(self.points.pop(0))
                    if isinstance(answer, Task):
                        return answer
                if task is None:
                    search.close()
                    task = search.ask()
                return task

        Fake(Offering(), 2).run()
        assert len(record.trials) == 11
        assert {t.state for t in record.trials} == {COMPLETE, STOPPED}


@pytest.mark.parametrize("scheduler", HALVING)
def test_best_subnets_are_trained_as_far_as_the_scheduler_says(scheduler: str, tmp_path: Path) -> None:
    ranking = replace(TWO, limits=(Limit("val_accuracy", 0.6, False, "--min-accuracy"),))
    directory, search, record = opened(tmp_path / "run", scheduler, ranking, proposing=False, trials=8)
    with directory:
        subnets = ArchitectureSearch(
            SPACE, load_sampler("random"), ranking, record, directory, Budget(12, EPOCHS), seed=0, kind="subnet"
        )
        while (task := subnets.ask()) is not None:
            # What is inherited is worse than what is trained: a limit is none for it.
            subnets.tell(task.number, Outcome({**known(task), "val_accuracy": accuracy(task, 8) - 0.5}))
        Fake(FinalistTraining(search, ranking, record), 2).run()
        trained = [t for t in record.trials if t.kind == "search"]
        assert len(trained) == 8
        assert {t.state for t in trained} == {COMPLETE, STOPPED}
        assert {t.candidate.key for t in trained} <= {t.candidate.key for t in record.trials if t.kind == "subnet"}


def test_all_subnets_failed(tmp_path: Path) -> None:
    directory, _, record = opened(tmp_path / "run", "none", TWO, proposing=False)
    with directory:
        subnets = ArchitectureSearch(
            SPACE, load_sampler("random"), TWO, record, directory, Budget(3, EPOCHS), seed=0, kind="subnet"
        )
        while (task := subnets.ask()) is not None:
            subnets.tell(task.number, Failure("ValueError: no"))
        with pytest.raises(SlimsearchError, match="all 3 trials failed; the first one: ValueError: no"):
            refuse_if_nothing_is_left(TWO, record)


class PausesAll:
    """Pauses every trial after its first epoch, for good."""

    def after_epoch(self, trial: TrialProgress, trials: Sequence[TrialProgress], epochs: int) -> Decision:
        return Decision.PAUSE

    def resume(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> int | None:
        return None

    def may_begin(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> bool:
        return True


def test_an_offered_candidate_that_is_running_or_paused_is_told_apart_from_a_failed_one(tmp_path: Path) -> None:
    points = [{"width": width, "depth": 0} for width in range(3)]
    directory, search, _ = opened(tmp_path / "run", PausesAll(), ONE, proposing=False, retries=0)
    with directory:
        running, paused, failed = (search.offer(point) for point in points)
        assert isinstance(running, Task)
        assert isinstance(paused, Task)
        assert isinstance(failed, Task)
        assert search.report(paused.number, 0, known(paused))
        assert not search.report(paused.number, 1, metrics(paused, 1))
        search.tell(paused.number, Outcome(metrics(paused, 1)))
        search.tell(failed.number, Failure("RuntimeError: it gave up"))
        expected = [Recorded({}, None, running=0), Recorded({}, None, running=1), Recorded({}, None)]
        assert [search.offer(point) for point in points] == expected
        assert [search.recorded(task.number) for task in (running, paused, failed)] == [None, None, expected[2]]
    directory, search, record = opened(tmp_path / "run", PausesAll(), ONE, proposing=False, retries=0)
    with directory:  # the same in a resumed run
        assert [trial.state for trial in record.trials] == [RUNNING, PAUSED, FAILED]
        assert [search.offer(point) for point in points] == expected
