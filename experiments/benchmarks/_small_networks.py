"""Rows of the headline table that search, train and test small networks for MNIST and CIFAR-10."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from experiments.benchmarks._command_runs import CommandRun, run_together
from experiments.network_folder import NetworkFolder, StoredNetwork
from experiments.reproduce import lenet_prune, resnet18_fused
from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.evaluators import DryRunTraining, Meter, TrainingSettings, measure_latency, use_one_thread
from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.search_spaces import FixedModel

LARGEST_KIB = 16
_MNIST_EPOCH = 18_000  # images: a third of the training split
_AGAIN, _AGAIN_EPOCHS = 6, 8  # networks of the search that are trained again, and their whole epochs
# The learning rate was chosen on the validation split, for two networks of these sizes.
_TRAINING = ("--batch-size", 128, "--learning-rate", 0.03, "--precision", "fp32", "--scheduler", "none")
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
    runs = [trained(f"long-{params}-{seed}", again, [_best(again)], long, seed, 1) for seed in range(seeds)]
    for first in range(0, seeds, workers):
        run_together(*runs[first : first + workers])
    found = _best(runs[0])
    accuracies = [_best(run)["metrics"]["test_accuracy"] for run in runs]
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


def _best(run: CommandRun) -> Mapping[str, Any]:
    return max(run.models, key=lambda model: (model["metrics"]["val_accuracy"], -model["metrics"]["size_kib"]))


def _lenet(mnist: Path, folder: Path) -> tuple[NetworkFolder, StoredNetwork]:
    """LeNet pruned as in `experiments/reproduce/lenet_prune.py`."""
    networks = lenet_prune.lenet_folder(folder, load_dataset("mnist", root=mnist))
    base = networks.train("base-0", lenet_prune.BASE_EPOCHS, 0)
    return networks, networks.compress(
        "pruned-0", base, lenet_prune.RECIPE, lenet_prune.EPOCHS, 0, **lenet_prune.TUNING
    )


PARAMS = 280_000
_RECIPES = "quantize:\n  keep_float: [none, ends]\n"
_OPTIONS = ("--batch-size", 128, "--learning-rate", 0.01, "--augment", "shift-flip")
_CIFAR10_EPOCH = 15_000  # images: a third of the training split


def small_cifar10(cifar10: Path, out: Path, trials: int, epochs: int, long: int) -> dict[str, Any]:
    """Search `resnet_cifar` for int8 files below two limits, and train the most accurate one for long.

    The limits are a tenth of the parameters of a compressed ResNet-18, and its latency.

    Args:
        cifar10: an image folder.
        out: folder of the runs.
        trials, epochs: of the search, whose epochs have a third of the images.
        long: epochs of the long training.

    Returns:
        JSON: the network with the best validation accuracy, its test accuracy, its latency and that of the ResNet-18,
        measured together, and the seconds of both runs.
    """
    use_one_thread()
    data = load_dataset(cifar10)
    out.mkdir(parents=True, exist_ok=True)
    reference, recipes = out / "resnet18.onnx", out / "recipes.yaml"
    if not reference.is_file():
        _compressed_resnet18(data, reference)
    recipes.write_text(_RECIPES, encoding="utf-8")
    (limit,) = _latencies([reference], data)
    limits = ("--max-params", PARAMS, "--max-latency-ms", f"{limit:.5f}")
    search = CommandRun(
        out / "search", "run", "--space", "resnet_cifar", "--dataset", cifar10, "--co-search", recipes, *limits,
        "--objectives", "val_accuracy",
        "--trials", trials, "--epochs", epochs, "--epoch-images", _CIFAR10_EPOCH, *_OPTIONS,
    ).begin().wait()  # fmt: skip
    fitting = [model for model in search.models if model["metrics"]["params"] <= PARAMS]
    best = max(fitting, key=lambda model: model["metrics"]["val_accuracy"])
    trained = CommandRun(
        out / "long", "retrain", search.directory, "--models", best["trial"],
        "--epochs", long, "--epoch-images", len(data.train), "--training-threads", 2,
        # The limit is for int8 files; the float32 files before quantization may be slower.
        "--max-latency-ms", 10 * limit, "--compress", "quantize", "--max-drop", 100, *_OPTIONS,
    ).begin().wait()  # fmt: skip
    int8 = [model for model in trained.models if model["recipe"]]
    found = max(int8, key=lambda model: model["metrics"]["val_accuracy"])
    ours, theirs = _latencies([trained.file(found), reference], data)
    return {
        "commands": [search.command, trained.command],
        "architecture": found["architecture"],
        "recipe": found["recipe"],
        "metrics": {
            name: found["metrics"][name] for name in ("val_accuracy", "test_accuracy", "params", "macs", "size_kib")
        },
        "latency_ms": ours,
        "resnet18_latency_ms": theirs,
        "seconds": search.seconds + trained.seconds,
    }


def _latencies(files: list[Path], data: Dataset) -> list[float]:
    with Meter().exclusive():
        found = measure_latency(files, data.input_shape, blocks=45, patience=20.0)
    return [latency.median_ms for latency in found]


def _compressed_resnet18(data: Dataset, path: Path) -> None:
    """Export ResNet-18 as `experiments/reproduce/resnet18_fused.py` does, untrained: latency depends on no weight."""
    space = FixedModel.load("torchvision.models:resnet18", data.input_shape, len(data.classes))
    network = Network(space.build({}, 0).eval())
    dry_run = DryRunTraining(data, TrainingSettings(), 0, 1, {"parent": network}, initial=network.copy_module)
    recipe = compression.Recipe.parse(resnet18_fused.TARGET + ",quantize")
    compression.export_onnx(recipe.apply(network, dry_run), path, dry_run.calibration)
