"""A network for CIFAR-10 of a tenth of the parameters of a compressed ResNet-18, and no slower: found and trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.benchmarks._runs import Run
from experiments.reproduce import resnet18_fused
from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.evaluators import Meter, Rehearsal, TrainingSettings, measure_latency, use_one_thread
from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.search_spaces import FixedModel

PARAMS = 280_000
_RECIPES = "quantize:\n  keep_float: [none, ends]\n"
_OPTIONS = ("--batch-size", 128, "--learning-rate", 0.01, "--augment", "shift-flip")
_SHORT_EPOCH = 15_000  # images: a third of the training split


def small_cifar10(cifar10: Path, out: Path, trials: int, epochs: int, long: int) -> dict[str, Any]:
    """Search `resnet_cifar` for int8 files below both limits, and train the most accurate for long.

    Args:
        cifar10: an image folder.
        out: where runs are kept.
        trials, epochs: of the search, whose epochs have a third of the images.
        long: epochs of the long training.

    Returns:
        JSON: the most accurate on the validation split, its accuracy on the test split, its latency and that of the
        compressed ResNet-18 measured together, and the seconds of everything.
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
    search = Run(
        out / "search", "run", "--space", "resnet_cifar", "--dataset", cifar10, "--co-search", recipes, *limits,
        "--objectives", "val_accuracy",
        "--trials", trials, "--epochs", epochs, "--epoch-images", _SHORT_EPOCH, *_OPTIONS,
    ).begin().wait()  # fmt: skip
    fitting = [model for model in search.models if model["metrics"]["params"] <= PARAMS]
    best = max(fitting, key=lambda model: model["metrics"]["val_accuracy"])
    trained = Run(
        out / "long", "retrain", search.directory, "--models", best["trial"],
        "--epochs", long, "--epoch-images", len(data.train), "--training-threads", 2,
        # The limit is that of int8 files: of the float32 ones they are made from it would be none that counts.
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
    """The file of the flow in `experiments/reproduce/resnet18_fused.py`; its time does not depend on its training."""
    space = FixedModel.load("torchvision.models:resnet18", data.input_shape, len(data.classes))
    network = Network(space.build({}, 0).eval())
    rehearsal = Rehearsal(data, TrainingSettings(), 0, 1, {"parent": network}, initial=network.copy_module)
    recipe = compression.Recipe.parse(resnet18_fused.TARGET + ",quantize")
    compression.export_onnx(recipe.apply(network, rehearsal), path, rehearsal.calibration)
