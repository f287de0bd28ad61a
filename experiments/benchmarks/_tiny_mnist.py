"""The most accurate network for MNIST of so many parameters: searched, trained for long, and read on the test split."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from experiments.benchmarks._runs import Run

TEACHER = {
    "stem": "plain", "block": "basic", "width1": 16, "width2": 32, "width3": 48, "depth1": 1, "depth2": 1, "depth3": 1,
}  # fmt: skip
LARGEST_KIB = 16


def tiny_mnist(mnist: Path, out: Path, params: int, trials: int, epochs: int, long: int, seeds: int) -> dict[str, Any]:
    """Search `tiny_cnn` below a limit, then train the best for long, towards a large network's answers.

    Args:
        mnist: what ``torchvision.datasets.MNIST`` reads.
        out: where runs are kept.
        params: at most.
        trials, epochs: of the search.
        long: epochs of the long training.
        seeds: trainings of each network that is trained for long.

    Returns:
        JSON: the most accurate on the validation split, with its accuracy on the test split over all seeds.
    """
    data = ("--dataset", "mnist", "--data-root", mnist)
    teacher = Run(
        out / "teacher", "retrain", json.dumps(TEACHER), "--space", "resnet_cifar", *data, "--epochs", "8",
        "--batch-size", "128", "--compress", "none",
    ).begin().wait()  # fmt: skip
    limits = ("--max-params", params, "--max-size-kib", LARGEST_KIB)
    search = Run(
        out / f"search-{params}", "run", "--space", "tiny_cnn", *data, *limits, "--trials", trials, "--epochs", epochs,
        "--batch-size", "128", "--learning-rate", "0.01", "--compress", "none", "--latency", "predicted",
    ).begin().wait()  # fmt: skip
    best = sorted(search.models, key=lambda model: -model["metrics"]["val_accuracy"])[:2]
    numbers = ",".join(str(model["trial"]) for model in best)
    file = teacher.file(teacher.models[0])
    trained = Run(
        out / f"long-{params}", "retrain", search.directory, "--models", numbers,
        "--epochs", long, "--compress", f"distill:teacher={file}:temperature=4:weight=0.9:epochs={long}", *limits,
        "--max-drop", "0", "--repeats", seeds,
    ).begin().wait()  # fmt: skip
    found = max(trained.models, key=lambda model: (model["metrics"]["val_accuracy"], -model["metrics"]["size_kib"]))
    over = found.get("over_seeds", {}).get("test_accuracy", {"values": [found["metrics"]["test_accuracy"]]})
    return {
        "commands": [teacher.command, search.command, trained.command],
        "architecture": found["architecture"],
        "recipe": found["recipe"],
        "metrics": {
            name: found["metrics"][name]
            for name in ("val_accuracy", "test_accuracy", "params", "macs", "size_kib", "latency_ms")
        },
        "test_accuracies": over["values"],
        "median_test_accuracy": median(over["values"]),
        "front": [
            {name: model["metrics"].get(name) for name in ("test_accuracy", "params", "size_kib", "latency_ms")}
            for model in trained.models + search.models
            if model["on_front"]
        ],
        "seconds": {run.directory.name: run.seconds for run in (teacher, search, trained)},
    }
