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
from experiments.options.script import write_whole
from slimsearch_errors import SlimsearchError

CANDIDATES, EPOCHS = 3, 3
# 9,000 images for each of the three; then the best of them goes on, to 81,000: all of them one and a half times.
OURS = (
    "--epochs", "9", "--epoch-images", "9000", "--scheduler", "asha:eta=3", "--augment", "none",
    "--batch-size", "128", "--learning-rate", "0.02", "--latency", "predicted", "--workers", "1",
    "--training-threads", "2",
)  # fmt: skip
_SCRIPT = """
import json, sys
import torch
torch.set_num_threads(int(sys.argv[1]))
from evaluators.datasets import load_dataset
from experiments.reproduce._nni_search import hello_nas
found = hello_nas(load_dataset("mnist", root=sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
print("found " + json.dumps(found))
"""


def hello_nas(mnist: Path, out: Path, seeds: int) -> dict[str, Any]:
    """NNI with one thread, ours, NNI with two threads, ours again; for each seed.

    Args:
        mnist: what ``torchvision.datasets.MNIST`` reads.
        out: where runs are kept.
        seeds: of NNI's random search, which chooses the architectures, and of both trainings.

    Returns:
        JSON: seconds from start to end of each process, and the test accuracy of the best candidate, which NNI
        chooses by test accuracy and ours by validation accuracy.
    """
    rows = []
    for seed in range(seeds):
        folder = out / f"seed-{seed}"
        row: dict[str, Any] = {"seed": seed, "nni_seconds": {}, "seconds": [], "nni_accuracy": {}, "accuracy": []}
        for threads in (1, 2):
            nni = _nni(mnist, folder, seed, threads)
            row["nni_seconds"][str(threads)] = nni["process_seconds"]
            row["nni_accuracy"][str(threads)] = nni["candidates"][nni["best"]]["test_accuracy_last"]
            architectures = [candidate["architecture"] for candidate in nni["candidates"]]
            ours = Run(
                folder / f"ours-{threads}", "retrain", json.dumps(architectures), "--space", "mnist_cnn",
                "--dataset", "mnist", "--data-root", mnist, "--compress", "none", "--seed", seed, *OURS,
            ).begin().wait()  # fmt: skip
            best = max(ours.models, key=lambda model: model["metrics"]["val_accuracy"])
            row["seconds"].append(ours.seconds)
            row["accuracy"].append(best["metrics"]["test_accuracy"])
            row["architectures"] = architectures
        row["times_faster"] = min(row["nni_seconds"].values()) / median(row["seconds"])
        rows.append(row)
    return {
        "command": "slimsearch retrain ARCHITECTURES --space mnist_cnn --dataset mnist --compress none "
        + " ".join(OURS),
        "rows": rows,
        "median_times_faster": median(row["times_faster"] for row in rows),
        "median_nni_seconds": median(min(row["nni_seconds"].values()) for row in rows),
        "median_seconds": median(second for row in rows for second in row["seconds"]),
        "median_nni_accuracy": median(max(row["nni_accuracy"].values()) for row in rows),
        "median_accuracy": median(accuracy for row in rows for accuracy in row["accuracy"]),
    }


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
        write_whole(kept, json.dumps({**json.loads(lines[0][6:]), "process_seconds": seconds}))
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found
