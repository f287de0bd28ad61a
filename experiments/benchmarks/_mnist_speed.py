"""Row of the headline table that trains a network for MNIST within some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

import slimsearch
from slimsearch.evaluators.datasets import load_dataset

_THREADS = 2


def mnist_speed(mnist: Path, out: Path, seeds: int) -> dict[str, Any]:
    """Train two networks, chosen on the validation split, for about 10 and 60 seconds.

    Args:
        mnist: folder that ``torchvision.datasets.MNIST`` reads.
        out: folder of the exported files.
        seeds: number of trainings of each.

    Returns:
        JSON: for each network the seconds of every training, validation after each epoch included and imports and
        reading the data not, and the test accuracy of the file.
    """
    data = load_dataset("mnist", root=mnist)
    assert data.test is not None
    # PyTorch loads its kernels when they are first used.
    slimsearch.train(_lenet(), load_dataset("mnist5k"), epochs=1, threads=_THREADS)
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, (build, settings) in _NETWORKS.items():
        seconds, accuracies = [], []
        for seed in range(seeds):
            torch.manual_seed(seed)
            network = build()
            began = time.perf_counter()
            trained = slimsearch.train(network, data, seed=seed, threads=_THREADS, augmentation="shift", **settings)
            seconds.append(time.perf_counter() - began)
            file = slimsearch.export(trained, out / f"{name}-{seed}.onnx", data)
            accuracies.append(slimsearch.accuracy(file, data, data.test))
        found[name] = {
            "seconds": seconds, "median_seconds": median(seconds), "test_accuracies": accuracies,
            "median_test_accuracy": median(accuracies), **settings, "params": trained.params,
        }  # fmt: skip
    return {"networks": found, "threads": _THREADS}


def _lenet() -> nn.Module:
    """A LeNet with batch normalization."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 32, 5, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def _five_convolutions() -> nn.Module:
    return nn.Sequential(
        _convolution(1, 16, 5, 2), _convolution(16, 32), _convolution(32, 32), nn.MaxPool2d(2),
        _convolution(32, 64), _convolution(64, 64), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 3 * 3, 10),
    )  # fmt: skip


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


_NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "10 s": (_lenet, {"epochs": 5, "batch_size": 512, "learning_rate": 0.04}),
    "60 s": (_five_convolutions, {"epochs": 12, "batch_size": 256, "learning_rate": 0.02}),
}
"""Networks and their training."""
