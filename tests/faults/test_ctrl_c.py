"""Ctrl-C at random moments of real runs: once ends a run in order, twice at once."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

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
            assert "interrupted; go on with --resume run" in process.said
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
