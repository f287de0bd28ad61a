"""Runs that are ended from outside, by kill -9 and by Ctrl-C; again and again: tests/faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context, reduction
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from rich.console import Console

import slimsearch
from slimsearch.cli.exit_code import exit_code
from slimsearch.interrupts import interruptible
from slimsearch.report.report_files import write_reports
from tests.conftest import DEFINED, TINY, Run, environment, recorded


@pytest.mark.parametrize("space", [TINY, pytest.param(f"{DEFINED}:with_training", marks=pytest.mark.slow)])
def test_kill_9_and_resume_lose_and_repeat_nothing(space: str, tmp_path: Path, run_apart: Run) -> None:
    words = [
        "--space",
        space,
        "--trials",
        "6",
        "--dataset",
        "digits",
        "--epochs",
        "20",
        "--run-dir",
        "run",
        "--seed",
        "3",
    ]
    words += ["--compress", "quantize", "--top-k", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "slimsearch.cli.main", "run", *words],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[3/6]"):
            break
    process.kill()
    process.wait()
    before = recorded(tmp_path / "run")
    assert len(before) >= 3
    time.sleep(1)  # its workers notice within half a second
    again = run_apart("--resume", "run")
    assert again.returncode == 0, again.stderr
    after = recorded(tmp_path / "run")
    assert {number: after[number] for number in before} == before
    searched = [t for t in after.values() if t["kind"] == "search"]
    assert len(searched) == len({json.dumps(t["params"], sort_keys=True) for t in searched}) == 6


@pytest.mark.slow
def test_a_function_of_a_trial_is_resumed_with_the_same_proposals(tmp_path: Path, run_apart: Run) -> None:
    words = ["--space", f"{DEFINED}:with_training", "--trials", "13", "--dataset", "digits", "--workers", "1"]
    words += ["--epochs", "4", "--objectives", "val_accuracy,params", "--compress", "none"]
    whole = run_apart(*words, "--run-dir", "whole")
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "slimsearch.cli.main", "run", *words, "--run-dir", "run"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert any(line.startswith("[11/13]") for line in process.stdout)
    process.kill()
    process.wait()
    time.sleep(1)  # its workers notice within half a second
    again = run_apart("--resume", "run")
    assert again.returncode == 0, again.stderr
    proposed = [[trial["params"] for trial in recorded(tmp_path / name).values()] for name in ("whole", "run")]
    assert len(proposed[0]) == 13
    assert proposed[0] == proposed[1]


def begun(folder: Path, epochs: int) -> subprocess.Popen[str]:
    """A run of six trials in a session of its own."""
    words = ["--space", TINY, "--dataset", "digits", "--epochs", str(epochs), "--run-dir", "run", "--compress", "none"]
    return subprocess.Popen(
        [sys.executable, "-m", "slimsearch.cli.main", "run", *words], cwd=folder, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def until_a_trial_has_ended(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert any(line.startswith("[1/6]") for line in process.stdout)


def test_ctrl_c_and_resume(tmp_path: Path, run: Run) -> None:
    process = begun(tmp_path, epochs=20)
    until_a_trial_has_ended(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors == ""
    assert "interrupted; continue with --resume run" in rest
    assert (tmp_path / "run" / "report.html").is_file()
    before = recorded(tmp_path / "run")
    again = run("--resume", "run")
    assert again.returncode == 0, again.stderr
    after = recorded(tmp_path / "run")
    assert {number: after[number] for number in before} == before
    assert [t["state"] for t in after.values() if t["kind"] == "search"] == ["COMPLETE"] * 6


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restores signal handlers: those of a command stay after Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def ctrl_c_at(handlers: None) -> Iterator[Callable[[Callable[..., Any]], None]]:
    """``ctrl_c_at(function)``: Ctrl-C when this thread calls the function next."""

    def install(function: Any) -> None:
        def profile(frame: FrameType, event: str, _: object) -> None:
            if event == "call" and frame.f_code is function.__code__:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)

        sys.setprofile(profile)

    yield install
    sys.setprofile(None)


def from_python(run: Callable[[], None]) -> int:
    """As for `exit_code`, but as functions of the API are run."""
    with pytest.raises(KeyboardInterrupt):
        interruptible(run)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return 130


@pytest.mark.parametrize("call", [exit_code, from_python])
def test_ctrl_c_while_a_line_is_printed(
    call: Callable[[Callable[[], None]], int], ctrl_c_at: Callable[[Callable[..., Any]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """An exception in rich would leave its buffer open, and nothing that follows would be printed."""
    console = Console()

    def run() -> None:
        ctrl_c_at(Console.__exit__)
        try:
            console.print("a trial")
            time.sleep(30)
        except KeyboardInterrupt:
            console.print("interrupted")
            raise

    assert call(run) == 130
    assert capsys.readouterr().out == "a trial\ninterrupted\n"


def test_ctrl_c_during_the_last_line(
    ctrl_c_at: Callable[[Callable[..., Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything is done by then, and the signal reaches nothing that comes later."""

    def run() -> None:
        ctrl_c_at(Console.__exit__)
        Console().print("done")

    assert exit_code(run) == 0
    assert capsys.readouterr().out == "done\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert from_python(run) == 130
    assert capsys.readouterr().out == "done\n"


def test_ctrl_c_in_a_search_from_python(
    ctrl_c_at: Callable[[Callable[..., Any]], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """No line is lost, Python goes on with its own handler of Ctrl-C, and so does the run."""
    words: dict[str, Any] = {"trials": 1, "epochs": 1, "compress": "none", "run_dir": tmp_path / "run"}
    ctrl_c_at(Console.__exit__)
    with pytest.raises(KeyboardInterrupt):
        slimsearch.search(TINY, "digits", **words)
    shown = capsys.readouterr().out
    assert shown.startswith("run directory: ")
    assert shown.endswith(f"interrupted; continue with --resume {tmp_path / 'run'}\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(slimsearch.resume(tmp_path / "run").models) == 1


TURNS_IT = """
import signal

class TurnsIt:
    def propose(self, space, objectives, history, rng):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("an error in what a library calls") from None
"""


def test_ctrl_c_that_a_library_turns_into_another_exception(handlers: None, run: Run, tmp_path: Path) -> None:
    words = ["--space", TINY, "--dataset", "digits", "--epochs", "1", "--trials", "1", "--compress", "none"]
    (tmp_path / "sampler.py").write_text(TURNS_IT)
    process = run(*words, "--sampler", "sampler.py:TurnsIt", "--run-dir", "run")
    assert process.returncode == 130
    assert process.stderr == ""
    assert process.stdout.endswith("warning: interrupted; continue with --resume run\n")


def test_ctrl_c_while_a_worker_is_asked_for(
    ctrl_c_at: Callable[[Callable[..., Any]], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """The server of workers gets a whole message, and goes on."""
    context, asked = get_context("forkserver"), []

    def run() -> None:
        ctrl_c_at(reduction.sendfds)
        asked.append(context.Process(target=time.sleep, args=(0,)))
        asked[0].start()
        time.sleep(30)

    assert exit_code(run) == 130
    asked.append(context.Process(target=time.sleep, args=(0,)))
    asked[1].start()
    for process in asked:
        process.join(60)
        assert process.exitcode == 0
    assert capfd.readouterr().err == ""


def test_ctrl_c_while_the_report_is_written(
    ctrl_c_at: Callable[[Callable[..., Any]], None], run: Run, tmp_path: Path
) -> None:
    words = ["--space", TINY, "--dataset", "digits", "--epochs", "1", "--trials", "1", "--compress", "none"]
    ctrl_c_at(write_reports)
    process = run(*words, "--run-dir", "run")
    assert process.returncode == 130
    assert process.stderr == ""
    assert process.stdout.endswith("warning: interrupted; continue with --resume run\n")
    assert run("--resume", "run").returncode == 0
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_signals_of_schedulers_and_terminals_end_a_run_in_order(number: signal.Signals, tmp_path: Path) -> None:
    process = begun(tmp_path, epochs=20)
    until_a_trial_has_ended(process)
    os.killpg(process.pid, number)  # all of its processes, as a scheduler does
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert errors == ""
    assert "interrupted; continue with --resume run" in rest
    assert (tmp_path / "run" / "report.html").is_file()
    assert all(trial["state"] == "COMPLETE" for trial in recorded(tmp_path / "run").values())


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_nothing(tmp_path: Path) -> None:
    process = begun(tmp_path, epochs=1)
    assert process.stdout is not None
    assert process.stdout.readline() == "run directory: run\n"
    process.stdout.close()
    assert process.wait(240) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert "Top models:" in (tmp_path / "run" / "log.txt").read_text()
    assert [trial["state"] for trial in recorded(tmp_path / "run").values()] == ["COMPLETE"] * 6
