"""Rows of the headline table that train published networks for CIFAR-10, as anchors of other rows."""

from __future__ import annotations

import itertools
import math
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.network_folder import NetworkFolder, StoredNetwork
from experiments.reproduce._table import progress
from slimsearch.evaluators import TrainingSettings
from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.evaluators.training.augmentation import Augmentation
from slimsearch.evaluators.training.batches import TrainingBatches
from slimsearch.evaluators.training.hardware import autocast
from slimsearch.search_spaces import FixedModel

SETTINGS = TrainingSettings(batch_size=128, learning_rate=0.01, augmentation="shift-flip")


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = outputs // inputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        projection = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = projection if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x))


def residual_network(channels: int, blocks: int) -> nn.Module:
    """A network of He et al. 2016 for CIFAR-10, with projections as shortcuts between stages.

    Args:
        channels: of the images.
        blocks: of each of the three stages of 16, 32 and 64 channels.
    """
    widths = [16] * (blocks + 1) + [32] * blocks + [64] * blocks
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        *(_Residual(inputs, outputs) for inputs, outputs in itertools.pairwise(widths)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def resnet8() -> nn.Module:
    """ResNet-8 of MLPerf Tiny."""
    return residual_network(3, 1)


def resnet20() -> nn.Module:
    """ResNet-20 of He et al. 2016."""
    return residual_network(3, 3)


@dataclass(frozen=True)
class _Recipe:
    """A published training.

    Attributes:
        optimizer: for parameters.
        schedule: factor of the learning rate after a share of the training.
        batch_size: images per step.
    """

    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    schedule: Callable[[float], float]
    batch_size: int

    def train(
        self, model: nn.Module, epochs: int, report: Callable[[int, dict[str, float]], bool], seed: int, data: Dataset,
        augmentation: str, precision: str,
    ) -> None:  # fmt: skip
        """See `slimsearch.evaluators.training.function_training.Fit`."""
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        batches = TrainingBatches(data, Augmentation(augmentation, data), torch.device("cpu"), torch.channels_last)
        optimizer, rng = self.optimizer(model.parameters()), np.random.default_rng(seed)
        peak, steps = optimizer.param_groups[0]["lr"], math.ceil(len(data.train) / self.batch_size)
        for epoch in range(epochs):
            model.train()
            for step, chosen in enumerate(np.array_split(rng.permutation(len(data.train)), steps)):
                optimizer.param_groups[0]["lr"] = peak * self.schedule((epoch + step / steps) / epochs)
                inputs, targets = batches(chosen, rng)
                optimizer.zero_grad()
                with autocast("bf16" if precision == "mixed" else precision, "cpu"):
                    outputs = model(inputs)
                nn.functional.cross_entropy(outputs.float(), targets).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            report(epoch + 1, {"val_accuracy": _accuracy(model, data)})


@torch.no_grad()
def _accuracy(model: nn.Module, data: Dataset) -> float:
    model.eval()
    right = [model(inputs).argmax(1).numpy() == targets for inputs, targets in data.batches(data.validation, 250)]
    return float(np.concatenate(right).mean())


_RECIPES = {
    # Without its rotations; the learning rate falls as far as in its 500 epochs.
    "resnet8": _Recipe(
        lambda parameters: torch.optim.Adam(parameters, 1e-3, weight_decay=1e-4), lambda done: 0.99 ** (500 * done), 32
    ),
    "resnet20": _Recipe(
        lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=1e-4),
        lambda done: 0.1 ** ((done >= 0.5) + (done >= 0.75)),
        128,
    ),
}
OURS, PUBLISHED = "ours", "published"
"""Names of the two trainings."""

EPOCHS = {"resnet8": 30, "resnet20": 24}
"""Epochs of each training, about 20 and 40 minutes of a core."""


@dataclass(frozen=True)
class Reference:
    """A published network after both trainings.

    Attributes:
        networks: their folder.
        float32, int8: the files of each training.
    """

    networks: NetworkFolder
    float32: dict[str, StoredNetwork]
    int8: dict[str, StoredNetwork]


def trained_reference(cifar10: Path, out: Path, network: str, epochs: int) -> Reference:
    """Train a published network as Slimsearch does by default, and as its authors do, each in a process of its own.

    Args:
        cifar10: an image folder.
        out: folder of the networks.
        network: a function of this file.
        epochs: of each training; the schedule of the authors' is shortened.
    """
    networks = _networks(cifar10, out, network)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        trainings = [pool.submit(_train, cifar10, out, network, name, epochs) for name in (OURS, PUBLISHED)]
        trained = {name: training.result() for name, training in zip((OURS, PUBLISHED), trainings, strict=True)}
    int8 = {name: networks.compress(f"{name}-int8", found, "quantize", 1, 0) for name, found in trained.items()}
    return Reference(networks, trained, int8)


def reference(cifar10: Path, out: Path, network: str, epochs: int) -> dict[str, Any]:
    """Both trainings of `trained_reference`, with the same arguments.

    Returns:
        JSON: for each training its CPU seconds and the float32 and int8 files, all measured together.
    """
    found = trained_reference(cifar10, out, network, epochs)
    networks, trained = found.networks, [*found.float32.values(), *found.int8.values()]
    rows = [
        {
            **{name: stored.metrics[name] for name in ("val_accuracy", "params", "macs", "size_kib")},
            "test_accuracy": networks.test_accuracy(stored.file),
            "latency_ms": latency,
        }
        for stored, latency in zip(trained, networks.latencies([stored.file for stored in trained]), strict=True)
    ]
    return {
        "epochs": epochs,
        "trainings": {
            name: {"cpu_seconds": stored.metrics["cpu_seconds"], "float32": rows[place], "int8": rows[place + 2]}
            for place, (name, stored) in enumerate(found.float32.items())
        },
    }


def _train(cifar10: Path, out: Path, network: str, training: str, epochs: int) -> StoredNetwork:
    return _networks(cifar10, out, network, training).train(training, epochs, 0)


def _networks(cifar10: Path, out: Path, network: str, training: str = OURS) -> NetworkFolder:
    data = load_dataset(cifar10)
    space = FixedModel.load(f"{__file__}:{network}", data.input_shape, len(data.classes))
    fit = None if training == OURS else _RECIPES[network].train
    return NetworkFolder(out, space, {}, data, SETTINGS, progress, fit)
