"""Row of the headline table that searches compression recipes for a trained ResNet-18."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.benchmarks._command_runs import CommandRun
from experiments.network_folder import NetworkFolder, StoredNetwork
from experiments.reproduce import resnet18_fused
from slimsearch.compression import Network
from slimsearch.evaluators import size_kib
from slimsearch.evaluators.datasets import load_dataset
from slimsearch.search_spaces import FixedModel

PARAMS = 2_790_000
"""Parameters of the recipe written by hand in `experiments/reproduce/resnet18_fused.py`."""
MAX_DROP = 0.01
"""Accuracy that the fastest file may lose."""
_RECIPES = """\
prune:
  use: [true, false]
  params: [500000, 2790000]
  scope: network
  importance: taylor
  schedule: agp
  ramp: 0.3
distill:
  use: {values: [true], when: {prune.use: true}}
  learning_rate: 0.002
quantize:
  use: [true, false]
"""
_OPTIONS = ("--batch-size", 128, "--weight-decay", 0.05, "--augment", "shift-flip")


def searched_recipe(cifar10: Path, out: Path, base_epochs: int, epochs: int, budget: float) -> dict[str, Any]:
    """Search compression recipes for the ResNet-18 of `experiments/reproduce/resnet18_fused.py`.

    Two files are chosen on the validation split: the fastest one that loses at most `MAX_DROP`, and the most accurate
    one with at most `PARAMS` parameters. They are measured together with the base, as `slimsearch.export` writes it and
    as PyTorch does, which keeps taps of kernels that only meet padding.

    Args:
        cifar10: an image folder.
        out: folder of the runs.
        base_epochs: of the base, which is trained first if it is not there.
        epochs: of pruning with distillation.
        budget: seconds after which the search begins no further candidate.

    Returns:
        JSON: both files of the base, both chosen files, and the seconds of the search.
    """
    data = load_dataset(cifar10)
    space = FixedModel.load("torchvision.models:resnet18", data.input_shape, len(data.classes))
    networks = NetworkFolder(out, space, {}, data, resnet18_fused.SETTINGS)
    base = networks.train("base-0", base_epochs, 0)
    recipes = out / "recipes.yaml"
    recipes.write_text(_RECIPES, encoding="utf-8")
    search = CommandRun(
        out / "search", "compress", "torchvision:resnet18",
        "--weights", base.artifact.directory / "weights.safetensors", "--mean", "dataset", "--std", "dataset",
        "--dataset", cifar10, "--recipe-space", recipes,
        "--epochs", epochs, "--trials", 1000, "--timeout", budget, "--top-k", 20, *_OPTIONS,
    ).begin().wait()  # fmt: skip
    given = next(model for model in search.models if not model["recipe"])["metrics"]["val_accuracy"]
    smallest = min(model["metrics"]["params"] for model in search.models)
    fitting = [model for model in search.models if model["metrics"]["params"] <= max(PARAMS, smallest)]
    chosen = {
        "fastest": min(
            (model for model in search.models if _accuracy(model) >= given - MAX_DROP),
            key=lambda model: model["metrics"]["latency_ms"],
        ),
        "small": max(fitting, key=_accuracy),
    }
    plain = out / "plain.onnx"
    _export_plainly(space.build({}, 0), base, plain, data.input_shape)
    files = [plain, base.file, *(search.file(model) for model in chosen.values())]
    latencies, batches = networks.latencies(files), networks.latencies(files, batch=64)
    rows = {
        name: {
            "recipe": {} if model is None else model["recipe"],
            "val_accuracy": base.metrics["val_accuracy"] if model is None else _accuracy(model),
            "test_accuracy": networks.test_accuracy(file),
            "params": base.metrics["params"] if model is None else model["metrics"]["params"],
            "size_kib": size_kib(file),
            "latency_ms": latency,
            "latency_batch64_ms": batch,
        }
        for (name, model), file, latency, batch in zip(
            {"plain": None, "base": None, **chosen}.items(), files, latencies, batches, strict=True
        )
    }
    return {
        "command": search.command,
        "networks": rows,
        "candidates": len({str(model["recipe"]) for model in search.models}),
        "seconds": search.seconds,
    }


def _export_plainly(module: nn.Module, base: StoredNetwork, path: Path, shape: Sequence[int]) -> None:
    """Write the file of the base that ``torch.onnx.export`` makes."""
    network = Network.load(module, base.artifact.directory).copy_module().eval()
    axes = {"input": {0: "images"}, "output": {0: "images"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is the older one of PyTorch's, and needs nothing installed
        torch.onnx.export(
            network, (torch.zeros(1, *shape),), str(path), dynamo=False, opset_version=18,
            input_names=["input"], output_names=["output"], dynamic_axes=axes,
        )  # fmt: skip


def _accuracy(model: Mapping[str, Any]) -> float:
    return float(model["metrics"]["val_accuracy"])
