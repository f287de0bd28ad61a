"""Architecture and recipe searched as one, against search first and compression then: the same budget in seconds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from experiments.benchmarks import _search_then_compress
from experiments.benchmarks._runs import Run, carry_out
from slimsearch.evaluators import Objective, hypervolume
from slimsearch.evaluators.datasets import Split, load_dataset

OBJECTIVES = (
    Objective("test_accuracy", "maximize"), Objective("latency_ms", "minimize"), Objective("size_kib", "minimize"),
)  # fmt: skip
METHODS = {
    "co-search": (),
    "a third for the search": ("--sampler", f"{_search_then_compress.__file__}:Third"),
    "half": ("--sampler", f"{_search_then_compress.__file__}:Half"),
    "two thirds": ("--sampler", f"{_search_then_compress.__file__}:TwoThirds"),
}
_TRAIN, _TEST, _SIDE = 10_000, 5_000, 28


def co_search(cifar10: Path | None, out: Path, seeds: int, budget: float, epochs: int) -> dict[str, Any]:
    """Hypervolumes of the fronts of all methods, with one worker each, two at a time.

    Args:
        cifar10: an image folder of CIFAR-10; None: MNIST's 5,000 digits alone.
        out: where runs are kept.
        seeds: of the searches.
        budget: seconds after which a search begins no further candidate.
        epochs: of training.

    Returns:
        JSON: for each data set and seed the share of a box that each method's front dominates: accuracy on the test
        split, latency measured at the end, size; the box is spanned by the fronts of all methods with that seed.
    """
    data = {"mnist5k": "mnist5k"}
    if cifar10 is not None:
        data["cifar10-grey"] = str(_grey(cifar10, out / "cifar10-grey"))
    cells = []
    for (name, dataset), seed in itertools.product(data.items(), range(seeds)):
        runs = {
            method: Run(
                out / f"{name}-{seed}-{method.replace(' ', '-')}", "run", "--space", "tiny_cnn", "--dataset", dataset,
                "--co-search", "default", "--epochs", epochs, "--trials", 100_000, "--timeout", budget,
                "--workers", 1, "--seed", seed, *options,
                environment={_search_then_compress.BUDGET: str(budget)},
            )
            for method, options in METHODS.items()
        }  # fmt: skip
        pending = list(runs.values())
        for first in range(0, len(pending), 2):
            carry_out(*pending[first : first + 2])
        cells.append({"data": name, "seed": seed, **_compared(runs)})
    return {
        "budget_seconds": budget,
        "epochs": epochs,
        "cells": cells,
        "won": sum(cell["co_search"] > cell["best_other"] for cell in cells),
        "of": len(cells),
        "medians": {
            name: {
                method: median(cell["hypervolumes"][method] for cell in cells if cell["data"] == name)
                for method in METHODS
            }
            for name in data
        },
    }


def _compared(runs: Mapping[str, Run]) -> dict[str, Any]:
    fronts = {method: _front(run.models) for method, run in runs.items()}
    everything = [metrics for found in fronts.values() for metrics in found]
    volumes = {method: hypervolume(OBJECTIVES, found, everything) for method, found in fronts.items()}
    return {
        "hypervolumes": volumes,
        "co_search": volumes["co-search"],
        "best_other": max(volume for method, volume in volumes.items() if method != "co-search"),
        "candidates": {method: _candidates(run.directory) for method, run in runs.items()},
    }


def _front(models: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    return [
        {objective.metric: float(model["metrics"][objective.metric]) for objective in OBJECTIVES}
        for model in models
        if model["on_front"]
    ]


def _candidates(directory: Path) -> int:
    """How many were scored in the search."""
    journal = (directory / "study.journal").read_text(encoding="utf-8")
    lines = (json.loads(line) for line in journal.splitlines())
    return sum(line.get("user_attr", {}).get("result", {}).get("state") == "complete" for line in lines)


def _grey(cifar10: Path, folder: Path) -> Path:
    """10,000 images of CIFAR-10 as grey ones of 28x28 pixels, with 5,000 to test on, as an image folder."""
    if (folder / "test").is_dir():
        return folder
    data = load_dataset(cifar10, image_size=_SIDE)
    assert data.test is not None
    for name, split, count in (("train", data.train, _TRAIN), ("test", data.test, _TEST)):
        _write(split, count, folder / f"{name}.part", data.classes)
        (folder / f"{name}.part").rename(folder / name)
    return folder


def _write(split: Split, count: int, folder: Path, classes: Sequence[str]) -> None:
    chosen = np.sort(np.random.default_rng(0).choice(len(split), count, replace=False))
    for place in chosen:
        into = folder / classes[split.labels[place]]
        into.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(split.images[place].transpose(1, 2, 0)).convert("L")
        image.save(into / f"{place:05d}.png")
