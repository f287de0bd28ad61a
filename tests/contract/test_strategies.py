"""Laws of every strategy: each task told once, whatever happens to its worker.

Those that propose by themselves obey the laws of the record alone; what is handed out to them beside their own offers
is evaluated as by any other. One-shot strategies need images to begin, and have tests of their own.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Evaluator, Outcome, ReportEpoch, Task
from slimsearch.names import built_in_names, load_class
from slimsearch.search_spaces import Candidate, ChoiceSpace, Point
from slimsearch.strategies import (
    Failure,
    Figures,
    Recorded,
    Search,
    Strategy,
    StrategySettings,
    Traits,
    load_strategy,
    traits_of,
)
from slimsearch.strategies._nni.multi_trial import MultiTrial
from slimsearch.strategies._nni.oneshot import OneShot

CLASSES: dict[str, type[Any]] = {
    name: load_class("strategy", name, "slimsearch.strategies") for name in built_in_names("slimsearch.strategies")
}
# Where time counts, one stands for all that are driven by the same code: `nni_evolution` for NNI's multi-trial
# strategies, `optuna` for `supernet` where there is nothing to prepare.
ALIKE = ("nni_grid", "nni_random", "nni_tpe", "supernet")
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name
    for name, found in CLASSES.items()
    if not issubclass(found, OneShot)
]
PROPOSING = [name for name, found in CLASSES.items() if issubclass(found, MultiTrial)]


@pytest.fixture(scope="module")
def ended_cluster() -> Iterator[None]:
    yield
    import ray

    ray.shutdown()


@pytest.fixture(autouse=True)
def cluster(request: pytest.FixtureRequest) -> None:
    """A Ray cluster for all tests of `ray` but the one that is about its end: to start one takes seconds."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if parameters.get("name") != "ray":
        return
    import ray

    request.getfixturevalue("ended_cluster")
    if request.node.originalname == "test_workers_are_gone_afterwards":
        ray.shutdown()
    elif not ray.is_initialized():
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


class Odd:
    """An evaluator whose behaviour the architecture names."""

    space = ChoiceSpace({"what": ["fine", "raise", "stop", "die"]})

    def evaluate(self, task: Task, *, report: ReportEpoch) -> Outcome:
        what = task.candidate.architecture["what"]
        print("said on standard output")
        if what == "raise":
            raise ValueError("first line\nsecond line")
        if what == "unpicklable":

            class Local(Exception):
                pass

            raise Local("cannot travel")
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


class Recorder:
    """A search that hands out tasks, takes offers if it is told to, and remembers everything."""

    def __init__(self, folder: Path, whats: list[str], *, offers: int = 0) -> None:
        self.folder, self.offers, self.closed = folder, offers, 0
        self.tasks = []
        for number, what in enumerate(whats):
            directory = folder / str(number)
            directory.mkdir()
            self.tasks.append(Task(number, Candidate({"what": what}), 1, 0, directory))
        self.waiting = list(self.tasks)
        self.told: list[tuple[int, Outcome | Failure]] = []
        self.reports: list[tuple[int, int]] = []

    def ask(self) -> Task | None:
        return self.waiting.pop(0) if self.waiting else None

    def offer(self, architecture: Point) -> Task | Recorded | None:
        assert not self.closed
        candidate = Odd.space.candidate(architecture)
        if any(task.candidate == candidate for task in self.tasks):
            return Recorded({}, None)
        if not self.offers:
            return None
        self.offers -= 1
        directory = self.folder / str(len(self.tasks))
        directory.mkdir()
        self.tasks.append(Task(len(self.tasks), candidate, 1, 0, directory))
        return self.tasks[-1]

    def close(self) -> None:
        self.closed += 1

    def recorded(self, number: int) -> Recorded | None:
        result = dict(self.told)[number]
        return Recorded({}, (-result.metrics["epochs"],) if isinstance(result, Outcome) else None)

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        self.reports.append((number, epoch))
        return not (self.tasks[number].candidate.architecture["what"] == "stop" and epoch == 2)

    def tell(self, number: int, result: Outcome | Failure) -> None:
        self.told.append((number, result))

    def figures(self) -> Figures:
        return Figures({"running": 1}, {"epochs": 4.0}, None)


def make(name: str, **settings: Any) -> Strategy:
    strategy: Strategy = CLASSES[name](StrategySettings(**settings))
    return strategy


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_told_once(name: str, tmp_path: Path) -> None:
    whats = ["fine", "raise", "die", "fine", "exit", "unpicklable", "stop", "hang", "fine", "fine"]
    search = Recorder(tmp_path, whats)
    limit = 8 if name == "ray" else 3  # Ray starts a process for each trial, which counts
    make(name, workers=2, trial_timeout=limit).run(search, Odd())
    assert sorted(number for number, _ in search.told) == list(range(len(whats)))
    results = dict(search.told)
    for number, what in enumerate(whats):
        result = results[number]
        if what in ("fine", "stop"):
            assert isinstance(result, Outcome)
            assert result.metrics["epochs"] == (4 if what == "fine" else 2)
        else:
            assert isinstance(result, Failure)
            assert "\n" not in result.error
            assert result.worker_died == (what in ("die", "exit"))
    assert results[1].error == "ValueError: first line"
    assert f"longer than --trial-timeout {limit} s" in results[whats.index("hang")].error
    assert "cannot travel" in results[whats.index("unpicklable")].error


@pytest.mark.parametrize("name", NAMES)
def test_output_goes_to_the_trials_log(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    search = Recorder(tmp_path, ["fine", "raise"])
    make(name, workers=1).run(search, Odd())
    assert "said on standard output" in (tmp_path / "0" / "log.txt").read_text()
    log = (tmp_path / "1" / "log.txt").read_text()
    assert "Traceback" in log
    assert "second line" in log
    assert "said on standard output" not in capfd.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_epochs_arrive_in_order(name: str, tmp_path: Path) -> None:
    search = Recorder(tmp_path, ["fine", "fine"])
    make(name, workers=2).run(search, Odd())
    for number in (0, 1):
        assert [epoch for n, epoch in search.reports if n == number] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_do_is_no_error(name: str, tmp_path: Path) -> None:
    search = Recorder(tmp_path, [])
    make(name, workers=1).run(search, Odd())
    assert search.told == []


@pytest.mark.parametrize("name", NAMES)
def test_workers_are_gone_afterwards(name: str, tmp_path: Path) -> None:
    search = Recorder(tmp_path, ["fine", "fine", "fine"])
    make(name, workers=2).run(search, Odd())
    processes = {int(result.metrics["process"]) for _, result in search.told if isinstance(result, Outcome)}
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{process}").exists() for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("name", PROPOSING)
@pytest.mark.parametrize("offers", [2, 100])
def test_offers_are_told_once_and_end(name: str, offers: int, tmp_path: Path) -> None:
    search = Recorder(tmp_path, [], offers=offers)
    make(name, workers=2).run(search, Odd())
    assert search.closed == 1
    assert sorted(number for number, _ in search.told) == list(range(min(offers, 4)))


def test_what_proposes_says_so() -> None:
    one_shot = {name for name, found in CLASSES.items() if issubclass(found, OneShot)}
    proposing = {name for name, found in CLASSES.items() if getattr(found, "traits", Traits()).proposes}
    assert one_shot < proposing == {name for name in CLASSES if name.startswith("nni_")}


def test_inheriting_strategy_without_anything_to_prepare(tmp_path: Path) -> None:
    """`supernet` is as `optuna` where the evaluator has no supernet."""
    search = Recorder(tmp_path, ["fine", "raise", "stop"])
    assert not hasattr(Odd(), "prepare")
    make("supernet", workers=1, run_directory=tmp_path).run(search, Odd())
    assert [number for number, _ in search.told] == [0, 1, 2]
    assert not (tmp_path / "supernet").exists()


def test_what_is_no_strategy_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "class Without: ...\n\nclass Old:\n    def __init__(self, workers, seed): ...\n    def run(self): ...\n"
    )
    with pytest.raises(SlimsearchError, match=r"Without' has no method run\(search, evaluator\)"):
        load_strategy(f"{file}:Without", StrategySettings())
    with pytest.raises(SlimsearchError, match=r"Old' cannot be constructed: TypeError: .*missing 1 required"):
        load_strategy(f"{file}:Old", StrategySettings())


def test_traits_have_a_default_and_a_type(tmp_path: Path) -> None:
    class Own:
        def run(self, search: Search, evaluator: Evaluator) -> None: ...

    own = Own()
    assert traits_of(own) == Traits()
    own.traits = {"proposes": True}  # type: ignore[attr-defined]
    with pytest.raises(SlimsearchError, match=r"Own.traits is no slimsearch.strategies.Traits: \{'proposes'"):
        traits_of(own)


def test_published_names_stand_for_files_of_other_names() -> None:
    """Configurations of earlier runs name `optuna`, whose class holds local workers."""
    names = built_in_names("slimsearch.strategies")
    assert {"optuna", "supernet"} < set(names)
    assert not {"local", "weight_sharing"} & set(names)
    assert load_class("strategy", "optuna", "slimsearch.strategies").__name__ == "Local"
    assert load_class("strategy", "local", "slimsearch.strategies").__name__ == "Local"
    with pytest.raises(SlimsearchError, match=r"known: .*, optuna, ray, supernet, or path"):
        load_class("strategy", "optune", "slimsearch.strategies")
