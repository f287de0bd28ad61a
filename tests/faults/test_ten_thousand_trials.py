"""One run of 10,000 trials: what it takes does not grow with what is behind it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.counts import Counts
from tests.faults.processes import Process

pytestmark = pytest.mark.faults

TRIALS = 10_000
PROGRAM = """
import sys

import slimsearch


def evaluate(candidate):
    values = [candidate[label] for label in sorted(candidate)]
    return {"score": sum((i + 1) * v for i, v in enumerate(values)) % 97, "cost": max(values) * sum(values)}


slimsearch.search(
    {f"choice{i}": list(range(10)) for i in range(5)}, evaluate=evaluate, objectives="score:max,cost:min",
    trials=int(sys.argv[1]), sampler=sys.argv[2], run_dir="run",
)
"""
MEMORY_MIB = 1024


def test_memory_and_time_stay_within_bounds(tmp_path: Path, counts: Counts) -> None:
    """Less than 1 GiB in the main process, and the last thousand trials at most twice as long as the first."""
    (tmp_path / "program.py").write_text(PROGRAM)
    process = Process(tmp_path, str(TRIALS), "random", command=(sys.executable, "program.py"))
    main, most = psutil.Process(process.pid), 0
    while not process.over:
        try:
            most = max(most, main.memory_info().rss)
        except psutil.Error:
            break
        time.sleep(0.2)
    assert process.end() == 0, process.said
    seconds = milliseconds(process.run)
    first, last = np.median(seconds[:1000]), np.median(seconds[-1000:])
    print(f"{most / 2**20:.0f} MiB; ms a trial: {first:.2f} of the first thousand, {last:.2f} of the last")
    assert most < MEMORY_MIB * 2**20
    assert last < 2 * first
    counts.add("trials in one run", TRIALS)


def milliseconds(run: Path) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Between the ends of one trial and the next."""
    import optuna

    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(run / "study.journal")))
    trials = optuna.load_study(study_name=None, storage=storage).get_trials(deepcopy=False)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * TRIALS
    ends = sorted(trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete)
    return 1000 * np.diff(ends)
