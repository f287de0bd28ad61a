"""Rows of the headline table that time a run: its first seconds, and NNI's "Hello, NAS!"."""

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

from experiments.benchmarks._command_runs import CommandRun, front
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective, hypervolume
from slimsearch.files import write_json

_RUN = Path(__file__).resolve().parents[1] / "run.py"
_POLL_SECONDS = 0.01
_LONGEST = 300.0
COMMAND = ("--space", "mnist_cnn", "--strategy", "optuna", "--dataset", "mnist5k")


def first_seconds(repeats: int) -> dict[str, Any]:
    """Seconds from the start of a command to its first epoch and its first recorded trial.

    The process is interrupted when its journal has the trial. The first start reads files from disk that the others
    find in memory.

    Returns:
        JSON: seconds of each start, and their medians.
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
        command = [sys.executable, str(_RUN), *COMMAND, "--run-dir", str(run)]
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
    """The time at which the journal has a line of a kind."""
    journal = run / "study.journal"
    while time.perf_counter() and process.poll() is None:
        lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
        if any(happened(json.loads(line)) for line in lines):
            return time.perf_counter()
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"the search ended with exit code {process.returncode} before its first trial")


def _has_epoch(line: dict[str, Any]) -> bool:
    return bool(line.get("step", 0))


def _has_trial(line: dict[str, Any]) -> bool:
    return "result" in line.get("user_attr", {})


SCHEDULERS = ("none", "asha:eta=3", "dominated")


def main_command(out: Path, seeds: int, trials: int | None) -> dict[str, Any]:
    """Time the command of README with each scheduler, and compare the fronts of the files.

    Args:
        out: folder of the runs.
        seeds: number of seeds.
        trials: of a search; None for those of the command.

    Returns:
        JSON: for each seed and scheduler the seconds from start to end, and the hypervolume of
        validation accuracy, final latency and size, relative to the box of the fronts of all schedulers.
    """
    options = () if trials is None else ("--trials", trials, "--top-k", 1)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        runs = {
            scheduler: CommandRun(
                out / f"{scheduler.replace(':', '-')}-{seed}",
                "run", *COMMAND, "--scheduler", scheduler, "--seed", seed, *options,
            ).begin().wait()
            for scheduler in SCHEDULERS
        }  # fmt: skip
        fronts = {scheduler: front(run.models, _OBJECTIVES) for scheduler, run in runs.items()}
        everything = [metrics for found in fronts.values() for metrics in found]
        rows.append(
            {
                "seed": seed,
                "seconds": {scheduler: run.seconds for scheduler, run in runs.items()},
                "hypervolume": {name: hypervolume(_OBJECTIVES, found, everything) for name, found in fronts.items()},
            }
        )
    return {
        "command": f"python experiments/run.py {' '.join(COMMAND)}",
        "rows": rows,
        "medians": {
            scheduler: {
                "seconds": median(row["seconds"][scheduler] for row in rows),
                "hypervolume": median(row["hypervolume"][scheduler] / row["hypervolume"]["none"] for row in rows),
            }
            for scheduler in SCHEDULERS
        },
    }


_OBJECTIVES = (
    Objective("val_accuracy", "maximize"), Objective("latency_ms", "minimize"), Objective("size_kib", "minimize"),
)  # fmt: skip

CANDIDATES, EPOCHS = 3, 3
# 9,000 images for each of the three, then up to 81,000 for the best one: one and a half times all images.
SHORT = 9
# Twice as many of each, 162,000 for the best one: the tutorial has 180,000.
LONG = 18
OURS = (
    "--epoch-images", "9000", "--scheduler", "asha:eta=3", "--augment", "none", "--batch-size", "128",
    "--learning-rate", "0.02", "--latency", "predicted", "--workers", "1", "--training-threads", "2",
)  # fmt: skip
_PROGRAM = """
import json, sys
import torch
torch.set_num_threads(int(sys.argv[1]))
from slimsearch.evaluators.datasets import load_dataset
from experiments.reproduce._nni_search import hello_nas
found = hello_nas(load_dataset("mnist", root=sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
print("found " + json.dumps(found))
"""


def hello_nas(mnist: Path, out: Path, seeds: int) -> dict[str, Any]:
    """Time NNI with one thread, Slimsearch, NNI with two threads, and Slimsearch again and for twice as long.

    Both train the same three architectures on the same data, which NNI's random search has drawn.

    Args:
        mnist: folder that ``torchvision.datasets.MNIST`` reads.
        out: folder of the runs.
        seeds: number of seeds, from 1. Seed 0 is left out: the options of Slimsearch were chosen by its test accuracy.

    Returns:
        JSON: seconds from start to end of each process, and the test accuracy of the best candidate, which NNI
        chooses by test accuracy and Slimsearch by validation accuracy.
    """
    rows = []
    for seed in range(1, seeds + 1):
        folder = out / f"seed-{seed}"
        row: dict[str, Any] = {"seed": seed, "nni_seconds": {}, "seconds": [], "nni_accuracy": {}, "accuracy": []}
        architectures: list[Any] = []
        for threads in (1, 2):
            nni = _nni(mnist, folder, seed, threads)
            row["nni_seconds"][str(threads)] = nni["process_seconds"]
            row["nni_accuracy"][str(threads)] = nni["candidates"][nni["best"]]["test_accuracy_last"]
            architectures = [candidate["architecture"] for candidate in nni["candidates"]]
            seconds, accuracy = _ours(mnist, folder / f"ours-{threads}", architectures, seed, SHORT)
            row["seconds"].append(seconds)
            row["accuracy"].append(accuracy)
        row["long_seconds"], row["long_accuracy"] = _ours(mnist, folder / "ours-long", architectures, seed, LONG)
        row["architectures"] = architectures
        row["times_faster"] = min(row["nni_seconds"].values()) / median(row["seconds"])
        row["long_times_faster"] = min(row["nni_seconds"].values()) / row["long_seconds"]
        rows.append(row)
    return {
        "command": "slimsearch retrain ARCHITECTURES --space mnist_cnn --dataset mnist --compress none "
        + f"--epochs {SHORT} {' '.join(OURS)}",
        "long_epochs": LONG,
        "rows": rows,
        "median_times_faster": median(row["times_faster"] for row in rows),
        "median_nni_seconds": median(min(row["nni_seconds"].values()) for row in rows),
        "median_seconds": median(second for row in rows for second in row["seconds"]),
        "median_nni_accuracy": median(max(row["nni_accuracy"].values()) for row in rows),
        "median_accuracy": median(accuracy for row in rows for accuracy in row["accuracy"]),
        "median_long_times_faster": median(row["long_times_faster"] for row in rows),
        "median_long_seconds": median(row["long_seconds"] for row in rows),
        "median_long_accuracy": median(row["long_accuracy"] for row in rows),
    }


def _ours(mnist: Path, folder: Path, architectures: list[Any], seed: int, epochs: int) -> tuple[float, float]:
    """Seconds, and the test accuracy of the candidate with the best validation accuracy."""
    run = CommandRun(
        folder, "retrain", json.dumps(architectures), "--space", "mnist_cnn", "--dataset", "mnist", "--data-root",
        mnist, "--compress", "none", "--seed", seed, "--epochs", epochs, *OURS,
    ).begin().wait()  # fmt: skip
    best = max(run.models, key=lambda model: model["metrics"]["val_accuracy"])
    return run.seconds, float(best["metrics"]["test_accuracy"])


def _nni(mnist: Path, folder: Path, seed: int, threads: int) -> dict[str, Any]:
    kept = folder / f"nni-{threads}.json"
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in (threads, mnist, seed, CANDIDATES, EPOCHS)]
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *words], cwd=Path(__file__).resolve().parents[2], capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        lines = [line for line in done.stdout.splitlines() if line.startswith("found ")]
        if done.returncode != 0 or not lines:
            raise SlimsearchError(f"NNI's search failed: {done.stderr.strip().rpartition(chr(10))[2]}")
        write_json(kept, {**json.loads(lines[0][6:]), "process_seconds": seconds})
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found
