"""Rows of the headline table that search, train and test small networks for MNIST and CIFAR-10."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from experiments.benchmarks._command_runs import CommandRun, run_together
from experiments.benchmarks._references import OURS, Reference
from experiments.network_folder import NetworkFolder, StoredNetwork
from experiments.reproduce import lenet_prune
from slimsearch.evaluators.datasets import load_dataset

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


PARAMS = 280_000
"""Limit of the larger network, as ResNet-20."""
KIB = 98_496 / 1024
"""Limit of the smaller file: ResNet-8 of MLPerf Tiny in int8."""
_RECIPES = "quantize:\n  keep_float: [none, ends]\n"
_PRUNED_PARAMS = 84_000
_PRUNING = """\
prune:
  use: [true, false]
  params: {params}
  scope: network
  importance: taylor
  schedule: agp
  ramp: 0.3
distill:
  use: {{values: [true], when: {{prune.use: true}}}}
  learning_rate: {{values: [0.004, 0.01]}}
quantize:
  use: {{values: [true], when: {{prune.use: true}}}}
"""
_SLOWER = 1.1  # than ResNet-8 may be the larger network, since pruning makes it faster
_OPTIONS = ("--batch-size", 128, "--learning-rate", 0.01, "--augment", "shift-flip")
_CIFAR10_EPOCH = 15_000  # images: a third of the training split


def small_cifar10(
    cifar10: Path, out: Path, trials: int, epochs: int, long: int, references: Mapping[str, Reference]
) -> dict[str, Any]:
    """Search `resnet_cifar` for an int8 file of at most `PARAMS` parameters, and make one of at most `KIB` from it.

    The most accurate network of the search is trained for long. Then its channels are cut gradually, and it is
    distilled, with two learning rates.

    Args:
        cifar10: an image folder.
        out: folder of the runs.
        trials, epochs: of the search, whose epochs have a third of the images.
        long: epochs of the long training; pruning has half as many.
        references: ResNet-8 and ResNet-20 by name.

    Returns:
        JSON: both files, chosen on the validation split, and those of the references, measured together; and the
        seconds of the three runs.
    """
    networks = references["resnet8"].networks
    theirs = {name: {"float32": found.float32[OURS], "int8": found.int8[OURS]} for name, found in references.items()}
    (limit,) = networks.latencies([theirs["resnet8"]["int8"].file])
    out.mkdir(parents=True, exist_ok=True)
    recipes, pruning = out / "recipes.yaml", out / "pruning.yaml"
    recipes.write_text(_RECIPES, encoding="utf-8")
    search = CommandRun(
        out / "search", "run", "--space", "resnet_cifar", "--dataset", cifar10, "--co-search", recipes,
        "--max-params", PARAMS, "--max-latency-ms", f"{_SLOWER * limit:.5f}", "--objectives", "val_accuracy",
        "--trials", trials, "--epochs", epochs, "--epoch-images", _CIFAR10_EPOCH, *_OPTIONS,
    ).begin().wait()  # fmt: skip
    fitting = [model for model in search.models if model["metrics"]["params"] <= PARAMS]
    images = len(networks.data.train)
    trained = CommandRun(
        out / "long", "retrain", search.directory, "--models", _best(fitting)["trial"],
        "--epochs", long, "--epoch-images", images, "--training-threads", 2,
        # The limit is for int8 files; the float32 files before quantization may be slower.
        "--max-latency-ms", 10 * limit, "--compress", "quantize", "--max-drop", 100, *_OPTIONS,
    ).begin().wait()  # fmt: skip
    parent = next(model for model in trained.models if not model["recipe"])
    params = min(_PRUNED_PARAMS, 0.7 * parent["metrics"]["params"])  # the network of --quick may be smaller already
    pruning.write_text(_PRUNING.format(params=round(params)), encoding="utf-8")
    pruned = CommandRun(
        out / "pruned", "compress", f"{trained.directory}:{parent['trial']}", "--dataset", cifar10,
        "--recipe-space", pruning, "--sampler", "grid", "--trials", 10, "--epochs", max(1, long // 2),
        "--epoch-images", images, "--top-k", 20, *_OPTIONS,
    ).begin().wait()  # fmt: skip
    int8 = [model for model in trained.models if model["recipe"]]
    fitting = [model for model in pruned.models if model["metrics"]["size_kib"] <= KIB]
    ours = {"larger": (trained, _best(int8)), "smaller": (pruned, _best(fitting))}
    files = [run.file(model) for run, model in ours.values()]
    files += [found.file for of in theirs.values() for found in of.values()]
    latencies = iter(networks.latencies(files))
    found = {
        name: {
            "recipe": model["recipe"], **{metric: model["metrics"][metric] for metric in _METRICS},
            "latency_ms": next(latencies),
        }
        for name, (_, model) in ours.items()
    }  # fmt: skip
    return {
        "commands": [run.command for run in (search, trained, pruned)],
        "architecture": parent["architecture"],
        "networks": found,
        "references": {
            name: {
                form: {"test_accuracy": networks.test_accuracy(file.file), "latency_ms": next(latencies)}
                for form, file in of.items()
            }
            for name, of in theirs.items()
        },
        "seconds": {run.directory.name: run.seconds for run in (search, trained, pruned)},
    }
