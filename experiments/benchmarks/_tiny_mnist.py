"""The most accurate network for MNIST of so many parameters: searched, trained for long, and read on the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from experiments.benchmarks._runs import Run, carry_out
from experiments.reproduce import lenet_prune
from slimsearch.evaluators.datasets import load_dataset
from slimsearch.loop.steps import Step, Steps

LARGEST_KIB = 16
_SHORT_EPOCH = 18_000  # images: a third of the training split
_AGAIN, _AGAIN_EPOCHS = 6, 8  # so many of the search are trained again, for so many whole epochs
# The rate was chosen on the validation split, for two networks of these sizes: their best is above the usual one.
_TRAINING = ("--batch-size", 128, "--learning-rate", 0.03, "--precision", "fp32", "--scheduler", "none")
_METRICS = ("val_accuracy", "test_accuracy", "params", "macs", "size_kib", "latency_ms")


def tiny_mnist(
    mnist: Path, out: Path, params: int, trials: int, epochs: int, long: int, seeds: int, workers: int
) -> dict[str, Any]:
    """Search `tiny_cnn` below a limit, then train the best for longer and longer.

    The six most accurate of the search, on the validation split, are trained anew for eight epochs, and the most
    accurate of these for `long`, with each seed. All files are measured together in the end, and with them a LeNet
    pruned to 2,421 parameters.

    Args:
        mnist: what ``torchvision.datasets.MNIST`` reads.
        out: where runs are kept.
        params: at most.
        trials, epochs: of the search, whose epochs have a third of the images.
        long: epochs of the long training.
        seeds: of it.
        workers: of the search; as many long trainings at a time.

    Returns:
        JSON: the most accurate on the validation split, with its accuracy on the test split over all seeds, and what
        else there is between it and the LeNet.
    """
    data = ("--dataset", "mnist", "--data-root", mnist)
    limits = ("--max-params", params, "--max-size-kib", LARGEST_KIB)
    search = Run(
        out / f"search-{params}", "run", "--space", "tiny_cnn", *data, *limits, *_TRAINING, "--trials", trials,
        "--epochs", epochs, "--epoch-images", _SHORT_EPOCH, "--compress", "none", "--objectives", "val_accuracy",
        "--latency", "predicted", "--top-k", _AGAIN, "--workers", workers,
    ).begin().wait()  # fmt: skip

    def trained(name: str, of: Run, chosen: Sequence[Mapping[str, Any]], epochs: int, seed: int, workers: int) -> Run:
        return Run(
            out / name, "retrain", of.directory, "--models", ",".join(str(model["trial"]) for model in chosen),
            "--workers", workers, "--epochs", epochs, "--epoch-images", 60_000, "--seed", seed,
            "--objectives", "val_accuracy,latency_ms,size_kib",
        )  # fmt: skip

    again = trained(f"again-{params}", search, search.models[:_AGAIN], _AGAIN_EPOCHS, 0, workers)
    again.begin().wait()
    runs = [trained(f"long-{params}-{seed}", again, [_best(again)], long, seed, 1) for seed in range(seeds)]
    for first in range(0, seeds, workers):
        carry_out(*runs[first : first + workers])
    found = _best(runs[0])
    accuracies = [_best(run)["metrics"]["test_accuracy"] for run in runs]
    steps, lenet = _lenet(mnist, out / "lenet")
    others = again.models
    latencies = steps.latencies([runs[0].file(found), *(again.file(model) for model in others), lenet.file])
    return {
        "commands": [run.command for run in (search, again, runs[0])],
        "architecture": found["architecture"],
        "metrics": {**{name: found["metrics"][name] for name in _METRICS}, "latency_ms": latencies[0]},
        "test_accuracies": accuracies,
        "median_test_accuracy": median(accuracies),
        "others": [
            {**{name: model["metrics"][name] for name in _METRICS}, "latency_ms": latency}
            for model, latency in zip(others, latencies[1:], strict=False)
        ],
        "lenet": {
            **{name: lenet.metrics[name] for name in _METRICS if name in lenet.metrics},
            "test_accuracy": steps.test_accuracy(lenet.file), "latency_ms": latencies[-1],
        },
        "seconds": {run.directory.name: run.seconds for run in (search, again, *runs)},
    }  # fmt: skip


def _best(run: Run) -> Mapping[str, Any]:
    return max(run.models, key=lambda model: (model["metrics"]["val_accuracy"], -model["metrics"]["size_kib"]))


def _lenet(mnist: Path, folder: Path) -> tuple[Steps, Step]:
    """LeNet pruned as in `experiments/reproduce/lenet_prune.py`, and what it was made with."""
    steps = lenet_prune.lenet_steps(folder, load_dataset("mnist", root=mnist))
    base = steps.train("base-0", lenet_prune.BASE_EPOCHS, 0)
    return steps, steps.compress("pruned-0", base, lenet_prune.RECIPE, lenet_prune.EPOCHS, 0, **lenet_prune.TUNING)
