"""Co-search of architectures and recipes against search first and compression second, with equal time."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from experiments.benchmarks._command_runs import CommandRun, front, run_together
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective, hypervolume
from slimsearch.evaluators.datasets import Split, load_dataset
from slimsearch.search_spaces import JointSpace, Point, RecipeSpace, Space, Subset
from slimsearch.strategies.samplers import History, Observation, load_sampler

BUDGET = "SLIMSEARCH_BUDGET_SECONDS"
"""Environment variable: seconds of the whole search."""


class _SearchThenCompress:
    """Proposes networks without compression for a share of the time, then recipes for the networks on their front.

    Otherwise it searches like co-search: with its sampler, stored trainings and scores of files.
    """

    SHARE: float
    scores_derived = False  # in the first part of the time, nothing is compressed

    def __init__(self) -> None:
        self._ends = time.monotonic() + self.SHARE * float(os.environ[BUDGET])
        self._sampler = load_sampler("graph_gp")

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        if not isinstance(space, JointSpace):
            raise SlimsearchError("search-then-compress needs --co-search")
        plain = _nothing_done(space.recipes)
        labels = {choice.label for choice in space.architectures.choices}
        untouched = [
            Observation(_only(o.point, labels), o.losses, o.violation, o.running)
            for o in history.observations
            if _without(o.point, labels) == plain
        ]
        scored = [o for o in untouched if o.losses is not None]
        if time.monotonic() < self._ends or not scored:
            found = self._sampler.propose(space.architectures, objectives, History(untouched), rng)
            return space.canonical({**found, **plain})
        chosen = Subset(space.architectures, [o.point for o in scored if not _dominated(o, scored)])
        narrow = JointSpace(chosen, space.recipes, space.steps)
        inside = History(o for o in history.observations if narrow.contains(o.point))
        return self._sampler.propose(narrow, objectives, inside, rng)


class Third(_SearchThenCompress):
    """Searches architectures for a third of the time."""

    SHARE = 1 / 3


class Half(_SearchThenCompress):
    """Searches architectures for half of the time."""

    SHARE = 1 / 2


class TwoThirds(_SearchThenCompress):
    """Searches architectures for two thirds of the time."""

    SHARE = 2 / 3


def _nothing_done(recipes: RecipeSpace) -> dict[str, Any]:
    found = next((point for point in recipes.grid() if not recipes.candidate(point).recipe), None)
    if found is None:
        raise SlimsearchError("this recipe space has no network without compression")
    return found


def _dominated(one: Observation, others: Sequence[Observation]) -> bool:
    assert one.losses is not None
    return any(
        o.losses is not None
        and o.losses != one.losses
        and all(a <= b for a, b in zip(o.losses, one.losses, strict=True))
        for o in others
    )


def _only(point: Mapping[str, Any], labels: set[str]) -> dict[str, Any]:
    return {label: value for label, value in point.items() if label in labels}


def _without(point: Mapping[str, Any], labels: set[str]) -> dict[str, Any]:
    return {label: value for label, value in point.items() if label not in labels}


OBJECTIVES = (
    Objective("test_accuracy", "maximize"), Objective("latency_ms", "minimize"), Objective("size_kib", "minimize"),
)  # fmt: skip
METHODS = {
    "co-search": (),
    "a third for the search": ("--sampler", f"{__file__}:Third"),
    "half": ("--sampler", f"{__file__}:Half"),
    "two thirds": ("--sampler", f"{__file__}:TwoThirds"),
}
_TRAIN, _TEST, _SIDE = 10_000, 5_000, 28


def co_search(cifar10: Path | None, out: Path, seeds: range, budget: float, epochs: int) -> dict[str, Any]:
    """Hypervolumes of the fronts of all methods; each run has one worker, and two runs go at a time.

    Args:
        cifar10: an image folder of CIFAR-10; None for mnist5k alone.
        out: folder of the runs.
        seeds: seeds of the runs on each data set.
        budget: seconds after which a search begins no further candidate.
        epochs: of training.

    Returns:
        JSON: for each data set and seed the hypervolumes of test accuracy, final latency and size, relative to the box
        of the fronts of all methods.
    """
    data = {"mnist5k": "mnist5k"}
    if cifar10 is not None:
        data["cifar10-grey"] = str(_grey(cifar10, out / "cifar10-grey"))
    cells = []
    for (name, dataset), seed in itertools.product(data.items(), seeds):
        runs = {
            method: CommandRun(
                out / f"{name}-{seed}-{method.replace(' ', '-')}", "run", "--space", "tiny_cnn", "--dataset", dataset,
                "--co-search", "default", "--epochs", epochs, "--trials", 100_000, "--timeout", budget,
                "--workers", 1, "--seed", seed, *options,
                environment={BUDGET: str(budget)},
            )
            for method, options in METHODS.items()
        }  # fmt: skip
        pending = list(runs.values())
        for first in range(0, len(pending), 2):
            run_together(*pending[first : first + 2])
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


def _compared(runs: Mapping[str, CommandRun]) -> dict[str, Any]:
    fronts = {method: front(run.models, OBJECTIVES) for method, run in runs.items()}
    everything = [metrics for found in fronts.values() for metrics in found]
    volumes = {method: hypervolume(OBJECTIVES, found, everything) for method, found in fronts.items()}
    return {
        "hypervolumes": volumes,
        "co_search": volumes["co-search"],
        "best_other": max(volume for method, volume in volumes.items() if method != "co-search"),
        "candidates": {method: _candidates(run.directory) for method, run in runs.items()},
    }


def _candidates(directory: Path) -> int:
    """Number of candidates that were scored in the search."""
    journal = (directory / "study.journal").read_text(encoding="utf-8")
    lines = (json.loads(line) for line in journal.splitlines())
    return sum(line.get("user_attr", {}).get("result", {}).get("state") == "complete" for line in lines)


def _grey(cifar10: Path, folder: Path) -> Path:
    """An image folder of CIFAR-10 in grey, 28x28 pixels: 10,000 training and 5,000 test images."""
    if (folder / "test").is_dir():
        return folder
    data = load_dataset(cifar10, image_size=_SIDE)
    assert data.test is not None
    for name, split, count in (("train", data.train, _TRAIN), ("test", data.test, _TEST)):
        _write(split, count, folder / f"{name}.part", data.classes)
        (folder / f"{name}.part").rename(folder / name)
    return folder


def _write(split: Split, count: int, folder: Path, classes: Sequence[str]) -> None:
    chosen = np.sort(np.random.default_rng(0).choice(len(split), min(count, len(split)), replace=False))
    for place in chosen:
        into = folder / classes[split.targets[place]]
        into.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(split.inputs[place].transpose(1, 2, 0)).convert("L")
        image.save(into / f"{place:05d}.png")
