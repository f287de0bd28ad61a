"""Rows of the headline table that search, train and test small networks for MNIST and CIFAR-10."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from experiments.benchmarks._command_runs import CommandRun, run_together
from experiments.benchmarks._references import OURS, Reference
from experiments.network_folder import NetworkFolder, StoredNetwork
from experiments.reproduce import lenet_prune
from slimsearch.evaluators.datasets import load_dataset
from slimsearch.files import write_json

LARGEST_KIB = 16
_MNIST_EPOCH = 18_000  # images: a third of the training split
_AGAIN, _AGAIN_EPOCHS = 6, 8  # networks of the search that are trained again, and their whole epochs
# Learning rate and augmentation were chosen on the validation split, for networks of 681 and 718 parameters.
_TRAINING = (
    "--batch-size", 128, "--learning-rate", 0.1, "--augment", "none", "--precision", "fp32", "--scheduler", "none",
)  # fmt: skip
_METRICS = ("val_accuracy", "test_accuracy", "params", "macs", "size_kib", "latency_ms")


def tiny_mnist(
    mnist: Path, out: Path, params: int, trials: int, epochs: int, long: int, seeds: int, workers: int
) -> dict[str, Any]:
    """Search `tiny_cnn` below a limit of parameters, then train the best networks for longer.

    The six networks with the best validation accuracy are trained again for eight epochs, and the best of them for
    `long` epochs with each seed. All files are measured together at the end, with a LeNet pruned to 2,421 parameters.

    Args:
        mnist: folder that ``torchvision.datasets.MNIST`` reads.
        out: folder of the runs.
        params: limit.
        trials, epochs: of the search, whose epochs have a third of the images.
        long: epochs of the long training.
        seeds: number of long trainings.
        workers: of the search; as many long trainings run at a time.

    Returns:
        JSON: the network with the best validation accuracy, its test accuracies over all seeds, the other five, and the
        LeNet.
    """
    data = ("--dataset", "mnist", "--data-root", mnist)
    limits = ("--max-params", params, "--max-size-kib", LARGEST_KIB)
    search = CommandRun(
        out / f"search-{params}", "run", "--space", "tiny_cnn", *data, *limits, *_TRAINING, "--trials", trials,
        "--epochs", epochs, "--epoch-images", _MNIST_EPOCH, "--compress", "none", "--objectives", "val_accuracy",
        "--latency", "predicted", "--top-k", _AGAIN, "--workers", workers,
    ).begin().wait()  # fmt: skip

    def trained(
        name: str, of: CommandRun, chosen: Sequence[Mapping[str, Any]], epochs: int, seed: int, workers: int
    ) -> CommandRun:
        return CommandRun(
            out / name, "retrain", of.directory, "--models", ",".join(str(model["trial"]) for model in chosen),
            "--workers", workers, "--epochs", epochs, "--epoch-images", 60_000, "--seed", seed,
            "--objectives", "val_accuracy,latency_ms,size_kib",
        )  # fmt: skip

    again = trained(f"again-{params}", search, search.models[:_AGAIN], _AGAIN_EPOCHS, 0, workers)
    again.begin().wait()
    runs = [trained(f"long-{params}-{seed}", again, [_best(again.models)], long, seed, 1) for seed in range(seeds)]
    for first in range(0, seeds, workers):
        run_together(*runs[first : first + workers])
    found = _best(runs[0].models)
    accuracies = [_best(run.models)["metrics"]["test_accuracy"] for run in runs]
    networks, lenet = _lenet(mnist, out / "lenet")
    others = again.models
    latencies = networks.latencies([runs[0].file(found), *(again.file(model) for model in others), lenet.file])
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
            "test_accuracy": networks.test_accuracy(lenet.file), "latency_ms": latencies[-1],
        },
        "seconds": {run.directory.name: run.seconds for run in (search, again, *runs)},
    }  # fmt: skip


def _best(models: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return max(models, key=lambda model: (model["metrics"]["val_accuracy"], -model["metrics"]["size_kib"]))


def _lenet(mnist: Path, folder: Path) -> tuple[NetworkFolder, StoredNetwork]:
    """LeNet pruned as in `experiments/reproduce/lenet_prune.py`."""
    networks = lenet_prune.lenet_folder(folder, load_dataset("mnist", root=mnist))
    base = networks.train("base-0", lenet_prune.BASE_EPOCHS, 0)
    return networks, networks.compress(
        "pruned-0", base, lenet_prune.RECIPE, lenet_prune.EPOCHS, 0, **lenet_prune.TUNING
    )


# As ResNet-20, and as ResNet-8 of MLPerf Tiny in int8; latency as a multiple of that of ResNet-8 in int8.
_LIMITS = {
    "larger": (("--max-params", 280_000), 1.1),
    "smaller": (("--max-size-kib", 98_496 / 1024), 1.0),
}
_RECIPES = "quantize:\n  keep_float: [none, ends]\n"
_OPTIONS = ("--batch-size", 128, "--learning-rate", 0.01, "--augment", "shift-flip")
_CIFAR10_EPOCH = 15_000  # images: a third of the training split


def small_cifar10(
    cifar10: Path, out: Path, trials: int, epochs: int, long: int, references: Mapping[str, Reference]
) -> dict[str, Any]:
    """Search `resnet_cifar` twice for int8 files within limits, and train the most accurate network of each for long.

    Args:
        cifar10: an image folder.
        out: folder of the runs.
        trials, epochs: of a search, whose epochs have a third of the images.
        long: epochs of a long training.
        references: ResNet-8 and ResNet-20 by name.

    Returns:
        JSON: both files, chosen on the validation split, and those of the references, measured together; and the
        seconds of the four runs.
    """
    networks = references["resnet8"].networks
    theirs = {name: {"float32": found.float32[OURS], "int8": found.int8[OURS]} for name, found in references.items()}
    out.mkdir(parents=True, exist_ok=True)
    recipes, measured = out / "recipes.yaml", out / "resnet8.json"
    recipes.write_text(_RECIPES, encoding="utf-8")
    if not measured.is_file():  # one limit for all, also if the row is interrupted
        write_json(measured, {"latency_ms": networks.latencies([theirs["resnet8"]["int8"].file])[0]})
    latency = json.loads(measured.read_text(encoding="utf-8"))["latency_ms"]
    runs: list[CommandRun] = []
    ours = {}
    for name, (limit, factor) in _LIMITS.items():
        search = CommandRun(
            out / f"search-{name}", "run", "--space", "resnet_cifar", "--dataset", cifar10, "--co-search", recipes,
            *limit, "--max-latency-ms", f"{factor * latency:.5f}", "--objectives", "val_accuracy",
            "--trials", trials, "--epochs", epochs, "--epoch-images", _CIFAR10_EPOCH, *_OPTIONS,
        ).begin().wait()  # fmt: skip
        trained = CommandRun(
            out / f"long-{name}", "retrain", search.directory, "--models", _best(search.models)["trial"],
            "--epochs", long, "--epoch-images", len(networks.data.train), "--training-threads", 2,
            # The limits are for int8 files; the float32 files before quantization are larger and slower.
            "--max-latency-ms", 10 * latency, *(("--max-size-kib", 10_000) if "--max-size-kib" in limit else ()),
            "--compress", "quantize", "--max-drop", 100, *_OPTIONS,
        ).begin().wait()  # fmt: skip
        ours[name] = (trained, _best([model for model in trained.models if model["recipe"]]))
        runs += [search, trained]
    files = [run.file(model) for run, model in ours.values()]
    files += [found.file for of in theirs.values() for found in of.values()]
    latencies = iter(networks.latencies(files))
    return {
        "commands": [run.command for run in runs],
        "networks": {
            name: {
                "architecture": model["architecture"], **{metric: model["metrics"][metric] for metric in _METRICS},
                "latency_ms": next(latencies),
            }
            for name, (_, model) in ours.items()
        },
        "references": {
            name: {
                form: {"test_accuracy": networks.test_accuracy(file.file), "latency_ms": next(latencies)}
                for form, file in of.items()
            }
            for name, of in theirs.items()
        },
        "seconds": {run.directory.name: run.seconds for run in runs},
    }  # fmt: skip
