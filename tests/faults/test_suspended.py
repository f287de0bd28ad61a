"""Runs that are suspended, as by Ctrl-Z: time limits count the time in which they can work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import environment
from tests.counts import Counts
from tests.faults.processes import Process, finished

pytestmark = pytest.mark.faults

PAUSE = {"timeout": 50.0, "trial_timeout": 15.0}
SCRIPT = """
import sys, time
import slimsearch

def evaluate(candidate):
    time.sleep(2)
    return {"score": candidate["x"]}

if __name__ == "__main__":
    options = {name: float(value) for name, value in (word.split("=") for word in sys.argv[2:])}
    slimsearch.search(
        {"x": [1, 2, 3, 4]}, evaluate=evaluate, objectives="score:min", trials=4, workers=1, retries=0,
        run_dir="run", strategy=sys.argv[1], show=False, **options,
    )
"""


@pytest.mark.parametrize("strategy", ["optuna", "ray"])
@pytest.mark.parametrize("limit", ["timeout", "trial_timeout"])
def test_the_time_of_a_suspended_run_is_not_counted(limit: str, strategy: str, tmp_path: Path, counts: Counts) -> None:
    """Suspended in a trial, for longer than the limit."""
    (tmp_path / "script.py").write_text(SCRIPT)
    seconds = 45 if limit == "timeout" else 8
    process = Process(tmp_path, strategy, f"{limit}={seconds}", command=[sys.executable, str(tmp_path / "script.py")])
    assert process.until(lambda: (process.run / "trials" / "00000").exists()), process.said
    time.sleep(1)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(PAUSE[limit])
    os.killpg(process.pid, signal.SIGCONT)
    assert process.end() == 0, process.said
    states = [trial["result"]["state"] for trial in finished(process.run).values()]
    assert "failed" not in states
    assert len(states) == 4
    counts.add("faults injected")


def test_a_clock_that_does_not_count_suspended_time(tmp_path: Path) -> None:
    code = (
        "import time; from slimsearch.running_time import running_seconds as r\na = r()\nprint('begun', flush=True)\n"
    )
    code += "time.sleep(3)\nprint(r() - a)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(1)
    process.send_signal(signal.SIGSTOP)
    time.sleep(8)
    process.send_signal(signal.SIGCONT)
    assert float(process.communicate()[0]) < 6
