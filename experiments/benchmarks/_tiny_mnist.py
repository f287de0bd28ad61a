"""The most accurate network for MNIST of so many parameters: searched, trained for long, and read on the test split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from experiments.benchmarks._runs import Run

TEACHER = {
    "stem": "plain", "block": "basic", "width1": 16, "width2": 32, "width3": 48, "depth1": 1, "depth2": 1, "depth3": 1,
}  # fmt: skip
LARGEST_KIB = 16
_SHORT_EPOCH = 18_000  # images: a third of the training split
_BEFORE_TEACHER = 4  # epochs
_TRAINING = ("--batch-size", 128, "--learning-rate", 0.01, "--precision", "fp32")


def tiny_mnist(
    mnist: Path, out: Path, params: int, trials: int, epochs: int, long: int, seeds: int, workers: int
) -> dict[str, Any]:
    """Search `tiny_cnn` below a limit, then train the best for long, towards a large network's answers.

    The most accurate of the search, on the validation split, is trained for long with each seed.

    Args:
        mnist: what ``torchvision.datasets.MNIST`` reads.
        out: where runs are kept.
        params: at most.
        trials, epochs: of the search, whose epochs have a third of the images.
        long: epochs of the long training.
        seeds: of it.
        workers: of every run.

    Returns:
        JSON: the most accurate on the validation split, with its accuracy on the test split over all seeds.
    """
    processes = ("--workers", workers)
    data = ("--dataset", "mnist", "--data-root", mnist, *processes)
    teacher = Run(
        out / "teacher", "retrain", json.dumps(TEACHER), "--space", "resnet_cifar", *data, "--epochs", "8",
        "--batch-size", "128", "--compress", "none",
    ).begin().wait()  # fmt: skip
    limits = ("--max-params", params, "--max-size-kib", LARGEST_KIB)
    search = Run(
        out / f"search-{params}", "run", "--space", "tiny_cnn", *data, *limits, *_TRAINING, "--trials", trials,
        "--epochs", epochs, "--epoch-images", _SHORT_EPOCH, "--scheduler", "asha:eta=3", "--compress", "none",
        "--latency", "predicted", "--top-k", 8,
    ).begin().wait()  # fmt: skip
    recipe = f"distill:teacher={teacher.file(teacher.models[0])}:temperature=4:weight=0.9:epochs={long}"
    best = max(search.models, key=lambda model: model["metrics"]["val_accuracy"])
    runs = [
        Run(
            out / f"long-{params}-{seed}", "retrain", search.directory, "--models", best["trial"], *processes,
            "--epochs", _BEFORE_TEACHER, "--epoch-images", 60_000, "--scheduler", "none", "--compress", recipe,
            "--max-drop", 0, "--seed", seed,
        ).begin().wait()
        for seed in range(seeds)
    ]  # fmt: skip
    found = _best(runs[0])
    accuracies = [_best(run)["metrics"]["test_accuracy"] for run in runs]
    return {
        "commands": [teacher.command, search.command, runs[0].command],
        "architecture": found["architecture"],
        "recipe": found["recipe"],
        "metrics": {
            name: found["metrics"][name]
            for name in ("val_accuracy", "test_accuracy", "params", "macs", "size_kib", "latency_ms")
        },
        "test_accuracies": accuracies,
        "median_test_accuracy": median(accuracies),
        "front": [
            {name: model["metrics"].get(name) for name in ("test_accuracy", "params", "size_kib", "latency_ms")}
            for model in search.models
            if model["on_front"]
        ],
        "seconds": {run.directory.name: run.seconds for run in (teacher, search, *runs)},
    }


def _best(run: Run) -> Mapping[str, Any]:
    return max(run.models, key=lambda model: (model["metrics"]["val_accuracy"], -model["metrics"]["size_kib"]))
