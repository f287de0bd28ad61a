"""The tutorial's "Hello, NAS!" against its own script: the same three architectures, the same data, wall time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from experiments.benchmarks._runs import Run
from slimsearch.errors import SlimsearchError
from slimsearch.files import write_json

CANDIDATES, EPOCHS = 3, 3
# 9,000 images for each of the three; then the best of them goes on, to 81,000: all of them one and a half times.
SHORT = 9
# Or twice as many of everything, 162,000 of the best: nearer to the tutorial's 180,000.
LONG = 18
OURS = (
    "--epoch-images", "9000", "--scheduler", "asha:eta=3", "--augment", "none", "--batch-size", "128",
    "--learning-rate", "0.02", "--latency", "predicted", "--workers", "1", "--training-threads", "2",
)  # fmt: skip
_SCRIPT = """
import json, sys
import torch
torch.set_num_threads(int(sys.argv[1]))
from slimsearch.evaluators.datasets import load_dataset
from experiments.reproduce._nni_search import hello_nas
found = hello_nas(load_dataset("mnist", root=sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
print("found " + json.dumps(found))
"""


def hello_nas(mnist: Path, out: Path, seeds: int) -> dict[str, Any]:
    """NNI with one thread, ours, NNI with two threads, ours again, ours for twice as long; for each seed.

    Args:
        mnist: what ``torchvision.datasets.MNIST`` reads.
        out: where runs are kept.
        seeds: how many, from 1, of NNI's random search, which chooses the architectures, and of both trainings. `OURS`
            was settled on with seed 0, its test accuracy in sight, which is therefore no part of the row.

    Returns:
        JSON: seconds from start to end of each process, and the test accuracy of the best candidate, which NNI
        chooses by test accuracy and ours by validation accuracy.
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
    """Seconds, and the test accuracy of the candidate that is best on the validation split."""
    run = Run(
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
            [sys.executable, "-c", _SCRIPT, *words], cwd=Path(__file__).resolve().parents[2], capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        lines = [line for line in done.stdout.splitlines() if line.startswith("found ")]
        if done.returncode != 0 or not lines:
            raise SlimsearchError(f"NNI's search failed: {done.stderr.strip().rpartition(chr(10))[2]}")
        write_json(kept, {**json.loads(lines[0][6:]), "process_seconds": seconds})
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found
