"""The same search on Ray Tune: the same candidates, named tasks, and a record that survives whatever is killed."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import slimsearch
from slimsearch.errors import SlimsearchError
from slimsearch.strategies import StrategySettings
from slimsearch.strategies._ray.evaluation import EpochReport, Mailbox
from slimsearch.strategies.ray import Ray
from tests.conftest import ROOT, environment

CHOICES = {"a": list(range(8)), "b": list(range(8))}

# A space and a function as a user has them, in one file; every evaluation leaves a line.
PROGRAM = """
import os
import time

import nni
import torch
from nni.nas.nn.pytorch import ModelSpace, MutableLinear


class Space(ModelSpace):
    def __init__(self):
        super().__init__()
        self.first = MutableLinear(64, nni.choice("a", [1, 2, 3, 4]))
        self.last = MutableLinear(nni.choice("b", [1, 2, 3, 4]), 10)

    def forward(self, x):
        return self.last(self.first(torch.flatten(x, 1)))


def evaluate(candidate):
    time.sleep(0.5)
    with open(os.environ["EVALUATED"], "a") as file:
        file.write(f"{candidate['a']} {candidate['b']}\\n")
    return {"val_accuracy": candidate["a"] / 10, "cost": candidate["b"]}
"""


# A searcher of a user's, which proposes everything twice.
SEARCHER = """
import json

from ray.tune.search import Searcher


class Descending(Searcher):
    def __init__(self):
        super().__init__()
        self.count = 0

    def set_search_properties(self, metric, mode, config, **spec):
        self.name, self.config = metric, config
        assert mode == "min"
        return True

    def suggest(self, trial_id):
        position = self.count // 2
        self.count += 1
        a, b = (self.config[label].categories for label in ("a", "b"))
        return {"a": a[-1 - position % 8], "b": b[position // 8]}

    def on_trial_complete(self, trial_id, result=None, error=False):
        with open("told", "a") as file:
            file.write(json.dumps(None if error else result[self.name]) + "\\n")
"""


@pytest.fixture(scope="module")
def ended_cluster() -> Iterator[None]:
    yield
    import ray

    ray.shutdown()


@pytest.fixture
def cluster(ended_cluster: None) -> None:
    """One for several tests: to start it takes seconds."""
    import ray

    if not ray.is_initialized():
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


def evaluate(candidate: Mapping[str, Any]) -> dict[str, float]:
    return {"score": -((candidate["a"] - 5) ** 2) - (candidate["b"] - 2) ** 2, "cost": candidate["a"] + candidate["b"]}


def define(trial: Any) -> Any:
    from torch import nn

    first = trial.suggest_int("a", 0, 7)
    return nn.Linear(first + 1, 1 + (trial.suggest_int("b", 0, 7) if first % 2 == 0 else 0))


def evaluate_some(candidate: Mapping[str, Any]) -> dict[str, float]:
    return evaluate({"b": 3, **candidate})


def found(
    folder: Path, strategy: str, space: Any = CHOICES, evaluate: Any = evaluate, **options: Any
) -> list[tuple[Mapping[str, Any], Mapping[str, float]]]:
    result = slimsearch.search(
        space, "digits", evaluate=evaluate, objectives="score:max,cost:min", strategy=strategy, trials=12, workers=1,
        show=False, run_dir=str(folder / strategy), **options,
    )  # fmt: skip
    return [(trial.candidate.architecture, trial.metrics) for trial in result.trials]


@pytest.mark.slow
def test_the_same_candidates_as_without(tmp_path: Path, cluster: None) -> None:
    assert found(tmp_path, "ray") == found(tmp_path, "optuna")


@pytest.mark.slow
def test_a_function_of_a_trial(tmp_path: Path, cluster: None) -> None:
    trials = found(tmp_path, "ray", define, evaluate_some)
    assert trials == found(tmp_path, "optuna", define, evaluate_some)
    assert all(("b" in architecture) == (architecture["a"] % 2 == 0) for architecture, _ in trials)


@pytest.mark.slow
def test_an_actor_that_is_killed_where_memory_is_short_does_not_end_the_run(
    tmp_path: Path, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune knows no such error, and ends: so it is begun again."""
    from ray.exceptions import OutOfMemoryError
    from ray.tune.execution.tune_controller import TuneController

    steps, step = iter(range(10**6)), TuneController.step

    def killed(controller: TuneController) -> None:
        if next(steps) == 20:
            raise RuntimeError("Caught unexpected exception") from OutOfMemoryError("killed")
        step(controller)

    monkeypatch.setattr(TuneController, "step", killed)
    trials = found(tmp_path, "ray")
    assert next(steps) > 20
    assert sorted(json.dumps(trial) for trial in trials) == sorted(json.dumps(t) for t in found(tmp_path, "optuna"))


def test_tune_that_is_killed_again_and_again_is_not_restarted_for_ever(
    tmp_path: Path, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.exceptions import OutOfMemoryError
    from ray.tune.execution.tune_controller import TuneController

    starts = []

    def killed(controller: TuneController) -> None:
        starts.append(controller)
        raise RuntimeError("Caught unexpected exception") from OutOfMemoryError("killed")

    monkeypatch.setattr(TuneController, "step", killed)
    with pytest.raises(SlimsearchError, match=r"lack of memory 4 times in a row.*continue with --resume"):
        found(tmp_path, "ray")
    assert len(starts) == 4


@pytest.mark.slow
def test_an_early_end_of_tune_is_not_ctrl_c(tmp_path: Path, cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.tune.execution.tune_controller import TuneController

    looks = iter(range(10**6))
    monkeypatch.setattr(TuneController, "is_finished", lambda controller: next(looks) >= 20)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)]
    with pytest.raises(SlimsearchError, match=r"Ray Tune ended before the search did.*continue with --resume"):
        found(tmp_path, "ray")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)] == before
    monkeypatch.undo()
    resumed = slimsearch.resume(tmp_path / "ray", space=CHOICES, evaluate=evaluate, show=False)
    assert len(resumed.trials) == 12


def test_ctrl_c_while_tune_runs_is_ctrl_c(tmp_path: Path, cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.tune.execution.tune_controller import TuneController

    steps, step = iter(range(10**6)), TuneController.step

    def pressed(controller: TuneController) -> None:
        step(controller)
        if next(steps) == 20:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(TuneController, "step", pressed)
    with pytest.raises(KeyboardInterrupt):
        found(tmp_path, "ray")
    assert next(steps) == 21, "Tune ends at once"


@pytest.mark.parametrize(
    ("sampler", "objectives"),
    [
        pytest.param("ray.tune.search.optuna:OptunaSearch", "score:max,cost:min", marks=pytest.mark.slow),
        pytest.param("ray.tune.search.basic_variant:BasicVariantGenerator", "score:max", marks=pytest.mark.slow),
        pytest.param("mine.py:Descending", "score:max", marks=pytest.mark.slow),
    ],
)
def test_a_searcher_of_tune_proposes(
    sampler: str, objectives: str, cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(SEARCHER)
    options: dict[str, Any] = {
        "evaluate": evaluate, "objectives": objectives, "strategy": "ray", "workers": 2, "show": False,
        "sampler": sampler,
    }  # fmt: skip
    result = slimsearch.search(CHOICES, run_dir="run", trials=6, **options)
    candidates = [trial.candidate.architecture for trial in result.trials]
    assert len(candidates) == 6
    assert len({json.dumps(candidate) for candidate in candidates}) == 6
    if "mine" in sampler:  # it repeats each proposal, and is told of the first of them from the record
        assert [c["a"] for c in candidates] == [7, 6, 5, 4, 3, 2]
        told = [json.loads(line) for line in Path("told").read_text().splitlines()]
        assert {json.dumps(t.metrics["score"]) for t in result.trials} >= {
            json.dumps(-t) for t in told if t is not None
        }
        assert len(told) >= 6
    again = slimsearch.resume("run", space=CHOICES, evaluate=evaluate, show=False, trials=8)
    assert [trial.candidate.architecture for trial in again.trials[:6]] == candidates
    assert len(again.trials) == 8


def test_a_searcher_of_tune_needs_ray() -> None:
    with pytest.raises(SlimsearchError, match="is a searcher of Ray Tune: it needs --strategy ray"):
        slimsearch.search(CHOICES, evaluate=evaluate, sampler="ray.tune.search.optuna:OptunaSearch", trials=2)
    with pytest.raises(SlimsearchError, match="neither a Searcher of Ray Tune nor its BasicVariantGenerator"):
        Ray(StrategySettings(sampler="ray.tune.search:SearchAlgorithm"))


def test_a_client_address_says_what_to_do() -> None:
    with pytest.raises(SlimsearchError, match=r"ray start --address=HOST:PORT --num-cpus=0"):
        Ray(StrategySettings(ray_address="ray://10.0.0.1:10001"))


def test_what_has_no_room_says_so() -> None:
    strategy = Ray(StrategySettings(cpus_per_trial=64))
    with pytest.raises(SlimsearchError, match=r"takes 64 CPU and 0 GPU, and the Ray cluster has 2 CPU, 0 GPU"):
        strategy._room({"CPU": 2.0})
    assert Ray(StrategySettings())._room({"CPU": 8.0}) == 8
    assert Ray(StrategySettings(workers=3))._room({"CPU": 8.0}) == 3
    assert Ray(StrategySettings(cpus_per_trial=0.5, gpus_per_trial=0.25))._room({"CPU": 8.0, "GPU": 1.0}) == 4
    assert Ray(StrategySettings(cpus_per_trial=0.1))._room({"CPU": 0.3}) == 3


def test_nobody_waits_for_a_task_that_has_ended() -> None:
    async def killed_while_it_reported() -> tuple[EpochReport | None, EpochReport | None, bool]:
        mailbox = Mailbox()
        await mailbox.begin("1")
        begun = await mailbox.next("1")
        asked = asyncio.create_task(mailbox.report(EpochReport("1", 0, {})))
        await mailbox.next("1")
        waiting = asyncio.create_task(mailbox.next("1"))
        await asyncio.sleep(0)
        await mailbox.forget("1")
        return begun, await waiting, await asked

    assert asyncio.run(asyncio.wait_for(killed_while_it_reported(), 5)) == (None, None, False)


def call(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "experiments" / "run.py"), *words],
        cwd=folder, env={**environment(), "EVALUATED": str(folder / "evaluated")}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def begin(folder: Path, trials: int, *more: str) -> subprocess.Popen[str]:
    (folder / "mine.py").write_text(PROGRAM)
    return call(
        folder, "--space", "mine.py:Space", "--evaluator", "mine.py:evaluate", "--objectives", "val_accuracy,cost:min",
        "--strategy", "ray", "--sampler", "random", "--trials", str(trials), "--workers", "2", "--run-dir", "run",
        *more,
    )  # fmt: skip


def wait_for(folder: Path, lines: int) -> None:
    deadline = time.monotonic() + 120
    while not (folder / "evaluated").is_file() or len((folder / "evaluated").read_text().splitlines()) < lines:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_what_was_finished_is_kept(sent: signal.Signals, tmp_path: Path) -> None:
    driver = begin(tmp_path, 12)
    wait_for(tmp_path, 4)
    os.kill(driver.pid, sent)
    said = driver.communicate(timeout=60)[0]
    if sent == signal.SIGINT:
        assert driver.returncode == 130, said
        assert "interrupted; continue with --resume run" in said
    before = len((tmp_path / "evaluated").read_text().splitlines())
    resumed = call(tmp_path, "--resume", "run")
    said = resumed.communicate(timeout=240)[0]
    assert resumed.returncode == 0, said
    lines = (tmp_path / "evaluated").read_text().splitlines()
    assert len(set(lines)) == 12
    # What was running is run again, and no more than that.
    assert 12 <= len(lines) <= 14
    assert before >= 4
    assert re.search(r"12/12", said)


@pytest.mark.slow
def test_the_dashboard_stays_open_until_ctrl_c(tmp_path: Path) -> None:
    driver = begin(tmp_path, 2, "--keep-dashboard")
    assert driver.stdout is not None
    said = ""
    while "stays open" not in said and (line := driver.stdout.readline()):
        said += line
    assert "report.html" in said, "the run is over"
    address = re.search(r"Ray dashboard: (http://127\.0\.0\.1:\d+)/#/jobs/\w+ ", said)
    assert address is not None, said
    with urllib.request.urlopen(f"{address[1]}/", timeout=60) as answer:
        assert answer.status == 200
    os.kill(driver.pid, signal.SIGINT)
    driver.communicate(timeout=60)
    assert driver.returncode == 0


@pytest.mark.slow
def test_trials_are_tasks_by_name(tmp_path: Path) -> None:
    driver = begin(tmp_path, 16)
    wait_for(tmp_path, 4)
    program = (
        "import json, ray; from ray.util.state import list_tasks; ray.init(address='auto', log_to_driver=False, "
        "logging_level=40); print(json.dumps([[t.name, t.state] for t in list_tasks(limit=1000)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=90, check=False
    )
    driver.communicate(timeout=240)
    assert done.returncode == 0, done.stderr
    names = [name for name, _ in json.loads(done.stdout.splitlines()[-1])]
    assert re.fullmatch(r"run, trial 0: a=\d b=\d", next(name for name in names if "trial 0:" in name))
    assert not any(name.startswith("Mailbox.") for name in names)
