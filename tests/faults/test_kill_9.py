"""``kill -9`` and other signals to the main process, to workers and to both, at random moments of real runs."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import DOZEN
from tests.counts import Counts
from tests.faults.processes import Process, finished

pytestmark = pytest.mark.faults

# Objectives that are the same whenever they are measured, and one worker: so is the whole run.
WORDS = (
    "--space", DOZEN, "--dataset", "digits", "--run-dir", "run", "--objectives", "val_accuracy,size_kib,macs",
    "--workers", "1", "--trials", "8", "--epochs", "8", "--top-k", "2", "--precision", "bf16", "--retries", "100",
    "--compress", "prune:sparsity=0.4:epochs=4,distill:epochs=4,quantize",
)  # fmt: skip
EXACT = ("val_accuracy", "size_kib", "macs", "params")
RUNS, KILLS = 20, 11
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without a kill."""
    folder = tmp_path_factory.mktemp("whole")
    process = Process(folder, *WORDS)
    assert process.end() == 0, process.said
    return folder / "run"


class Again:
    """A run that is killed and resumed until it comes to its end, and what it must not lose meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "run"
        self.kept: dict[int, dict[str, Any]] = {}
        self.running: dict[int, int] = {}
        self.killed = 0

    def go_on(self) -> Process:
        begun = (self.run / "config.yaml").exists()
        return Process(self.folder, *(("--resume", "run") if begun else WORDS))

    def lines(self) -> int:
        journal = self.run / "study.journal"
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    def kill(self, kill: Callable[[], object]) -> None:
        kill()
        self.killed += 1
        self.look()

    def look(self) -> None:
        """Every finished trial is there as it was, and a trial that was running is the same one as before."""
        found = finished(self.run)
        assert {number: found.get(number) for number in self.kept} == self.kept
        self.kept = found
        seeds = _seeds(self.run)
        assert {number: seeds.get(number) for number in self.running} == self.running
        self.running = seeds

    def to_the_end(self) -> None:
        process = self.go_on()
        assert process.end() == 0, process.said
        self.look()


def _seeds(run: Path) -> dict[int, int]:
    """Of all trials that have begun, by number."""
    import optuna

    journal = run / "study.journal"
    if not journal.exists() or journal.read_bytes().count(b"\n") < 2:
        return {}
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name=None, storage=storage)
    return {t.number: t.user_attrs["seed"] for t in study.get_trials(deepcopy=False)}


def exact(run: Path) -> dict[str, Any]:
    """What a run with one worker finds, whenever and however often it was interrupted."""
    trials = [
        (number, t["kind"], t["params"], t["state"], {name: t["result"]["metrics"].get(name) for name in EXACT})
        for number, t in sorted(finished(run).items())
    ]  # fmt: skip
    models = json.loads((run / "top_models.json").read_text())
    names = ("trial", "on_front", "architecture", "recipe")
    tested = (*EXACT, "test_accuracy")
    front = [({n: m[n] for n in names}, {n: m["metrics"][n] for n in tested}) for m in models]
    assert all((run / model["artifact"]).is_file() for model in models)
    return {"trials": trials, "models": front}


def assert_the_same(run: Path, whole: Path) -> None:
    """Epoch by epoch too, but for those that were over when a kill kept their accuracy from being recorded."""
    assert exact(run) == exact(whole)
    expected = curves(whole)
    for number, curve in curves(run).items():
        assert curve.items() <= expected[number].items(), number


def curves(run: Path) -> dict[int, dict[float, float]]:
    """Validation accuracy after each epoch, by trial."""
    return {
        number: {point["epoch"]: point["val_accuracy"] for point in t["result"]["curve"]}
        for number, t in finished(run).items()
    }


def end(process: Process, number: signal.Signals) -> None:
    """Send a signal to the main process, and wait for its end."""
    os.kill(process.pid, number)
    process.end(60)
    # Python prints one itself where a signal comes before the first line of the program: while the interpreter starts,
    # without a frame of the package, or while it imports the package to find the program.
    of_package = "Traceback" in process.said and f"{os.sep}slimsearch{os.sep}" in process.said
    assert not of_package or "_get_module_details" in process.said, process.said


def killed_again_and_again(folder: Path, seed: int, length: int) -> Again:
    """At one moment while it begins, at some anywhere, while the finalists are measured, and while it reports."""
    moments = random.Random(seed)
    folder.mkdir()
    run = Again(folder)
    places: list[float] = [-1, *sorted(moments.uniform(0, length) for _ in range(KILLS - 3)), length - 1, length]
    for place in places:
        process = run.go_on()
        wait = moments.uniform(0, 1.5)
        if place < 0:
            wait = moments.uniform(0, 6)
        elif place == length - 1:
            process.until(lambda: "measuring" in process.said)  # noqa: B023
        else:
            process.until(lambda: run.lines() >= place)  # noqa: B023
            wait = wait if place < length else moments.uniform(0, 0.1)
        time.sleep(wait)
        if process.over:  # it was faster
            assert process.end() == 0, process.said
        else:
            run.kill(lambda: end(process, moments.choice(SIGNALS)))  # noqa: B023
    run.to_the_end()
    return run


def test_the_main_process_killed_two_hundred_times(whole: Path, tmp_path: Path, counts: Counts) -> None:
    """No finished trial is lost, repeated or changed, and the result is that of the run without a kill."""
    length = (whole / "study.journal").read_bytes().count(b"\n")
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda seed: killed_again_and_again(tmp_path / str(seed), seed, length), range(RUNS)))
    for run in runs:
        assert_the_same(run.run, whole)
    killed = sum(run.killed for run in runs)
    assert killed >= 200
    counts.add("kills of the main process survived", killed)


def test_a_worker_killed_again_and_again(whole: Path, tmp_path: Path, counts: Counts) -> None:
    """The run goes on by itself, with the trial that was lost begun anew."""
    moments = random.Random(7)
    run = Again(tmp_path)
    process = run.go_on()
    length = (whole / "study.journal").read_bytes().count(b"\n")
    for place in sorted(moments.uniform(0, length - 4) for _ in range(8)):
        process.until(lambda: run.lines() >= place and process.workers())  # noqa: B023
        time.sleep(moments.uniform(0, 1.5))
        for worker in process.workers():
            run.kill(worker.kill)
    assert process.end() == 0, process.said
    run.look()
    assert_the_same(run.run, whole)
    counts.add("kills of workers survived", run.killed)


def test_both_killed_twice_in_a_row(whole: Path, tmp_path: Path, counts: Counts) -> None:
    """Also while a run is being resumed, before it has recorded anything new."""
    moments = random.Random(8)
    run = Again(tmp_path)
    length = (whole / "study.journal").read_bytes().count(b"\n")
    for place in (0.15 * length, 0.8 * length):
        for _ in range(2):
            process = run.go_on()
            process.until(lambda: run.lines() >= place and process.workers())  # noqa: B023
            time.sleep(moments.uniform(0, 1))

            def both() -> None:
                for found in (*process.workers(), psutil.Process(process.pid)):  # noqa: B023
                    found.kill()
                process.kill()  # noqa: B023

            run.kill(both)
    run.to_the_end()
    assert_the_same(run.run, whole)
    counts.add("kills of both survived", run.killed)
