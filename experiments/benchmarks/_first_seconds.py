"""How long a user waits for the first sign of a search: its first epoch, and its first trial."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

_SCRIPT = Path(__file__).resolve().parents[1] / "run.py"
_POLL_SECONDS = 0.01
_LONGEST = 300.0
COMMAND = ("--space", "mnist_cnn", "--strategy", "optuna", "--dataset", "mnist5k")


def first_seconds(repeats: int) -> dict[str, Any]:
    """Seconds from the start of a command to its first finished epoch and its first recorded trial.

    A process is started so many times, as a shell would start it; what it records is read from its journal as it is
    written, and it is interrupted when the trial is there. The first start reads files that others find in memory.

    Returns:
        JSON: seconds of every start, and their medians.
    """
    found = [_once() for _ in range(repeats)]
    return {
        "command": f"python experiments/run.py {' '.join(COMMAND)}",
        "epoch_seconds": [epoch for epoch, _ in found],
        "trial_seconds": [trial for _, trial in found],
        "median_epoch_seconds": median(epoch for epoch, _ in found),
        "median_trial_seconds": median(trial for _, trial in found),
    }


def _once() -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, str(_SCRIPT), *COMMAND, "--run-dir", str(run)]
        with (Path(folder) / "output.txt").open("wb") as output:
            started = time.perf_counter()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            try:
                epoch = _until(process, run, _has_epoch) - started
                trial = _until(process, run, _has_trial) - started
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGINT)
                process.wait(_LONGEST)
    return epoch, trial


def _until(process: subprocess.Popen[bytes], run: Path, happened: Any) -> float:
    """When the journal first had a line of a kind."""
    journal = run / "study.journal"
    while time.perf_counter() and process.poll() is None:
        lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
        if any(happened(json.loads(line)) for line in lines):
            return time.perf_counter()
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"the search ended with exit code {process.returncode} before there was anything to see")


def _has_epoch(line: dict[str, Any]) -> bool:
    return bool(line.get("step", 0))


def _has_trial(line: dict[str, Any]) -> bool:
    return "result" in line.get("user_attr", {})
