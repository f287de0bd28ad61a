"""Ctrl-C and other signals at random moments of real runs: once ends a run in order, Ctrl-C twice at once."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import TINY
from tests.counts import Counts
from tests.faults.processes import Process, finished

pytestmark = pytest.mark.faults

WORDS = (
    "--space", TINY, "--dataset", "digits", "--run-dir", "run", "--epochs", "25", "--compress", "prune:epochs=25",
    "--top-k", "2", "--workers", "2",
)  # fmt: skip
# A shell says 130 for both: that code, and a signal to a process that has done everything already.
ENDED = (130, -signal.SIGINT)
SECONDS = 2.0
PLACES = (5, 70, 150)


def lines(process: Process) -> int:
    journal = process.run / "study.journal"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(times: int, tmp_path: Path, counts: Counts) -> None:
    """The exit code is 130, no worker is left, and what was finished is there when the run is resumed."""
    moments = random.Random(times)
    kept: dict[int, dict[str, Any]] = {}
    for place in PLACES:
        begun = (tmp_path / "run" / "config.yaml").exists()
        process = Process(tmp_path, *(("--resume", "run") if begun else WORDS))
        process.until(lambda: lines(process) >= place and process.workers())  # noqa: B023
        time.sleep(moments.uniform(0, 1))
        process.interrupt()
        if times == 2:
            time.sleep(moments.uniform(0, 0.3))
            process.interrupt()
            assert process.left(SECONDS) == []
        else:
            process.end(30)
            assert "interrupted; continue with --resume run" in process.said
            assert (process.run / "report.html").is_file()
            assert process.left(SECONDS) == []
        assert process.end() in ENDED, process.said
        assert "Traceback" not in process.said
        found = finished(process.run)
        assert {number: found[number] for number in kept} == kept
        kept = found
    process = Process(tmp_path, "--resume", "run")
    assert process.end() == 0, process.said
    found = finished(process.run)
    assert {number: found[number] for number in kept} == kept
    assert [t["result"]["state"] for t in found.values() if t["kind"] == "search"] == ["complete"] * 6
    counts.add("interrupts survived", times * len(PLACES))


MOMENTS, START_SECONDS = 24, 8.0


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP,)])
def test_any_moment_of_the_start(signals: tuple[signal.Signals, ...], tmp_path: Path, counts: Counts) -> None:
    """No traceback and no process is left; what has not begun can be begun again in the same folder."""
    moments = random.Random(len(signals) + signals[0])
    for number in range(MOMENTS // 3):
        begun = (tmp_path / "run" / "config.yaml").exists()
        process = Process(tmp_path, *(("--resume", "run") if begun else WORDS))
        time.sleep(moments.uniform(0, START_SECONDS))
        for one in signals:
            for found in process.processes() if one == signal.SIGINT else process.processes()[:1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.send_signal(one)
            time.sleep(moments.choice([0.0, 0.01, 0.2]))
        # Before Python has started, the signal itself ends the process; Python ends with SIGINT after any interrupt in
        # code that was compiled from text.
        assert process.end(60) in (128 + signals[0], -signals[0], -signal.SIGINT), (number, process.said)
        assert "Traceback" not in process.said, process.said
        assert process.left(START_SECONDS) == []  # an interpreter that starts ends later
    process = Process(tmp_path, *(("--resume", "run") if (tmp_path / "run" / "config.yaml").exists() else WORDS))
    process.until(lambda: finished(process.run))
    process.kill()
    counts.add("interrupts survived", MOMENTS // 3)
