"""The tables of trained networks that searches are tried on, and what is asked of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks import _measures, _nasbench201
from experiments.benchmarks._measures import Numbers
from experiments.benchmarks._searches import Problem
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective, TableEvaluator, Task

LENET = "lenet"
LENET_TABLE = Path(__file__).parent / "results" / "lenet_mnist5k.csv"
_MARKS = {"one": (50, 100, 200, 300), "noisy": (100,), "two": (50, 100, 200, 400), "three": (50, 100, 200, 400)}
_LENET_MARKS = {"one": (20, 50, 100), "two": (20, 50, 100)}
OBJECTIVES = {"one": 1, "noisy": 1, "two": 2, "three": 3}


@dataclass(frozen=True, eq=False)
class Data:
    """One table.

    Attributes:
        name: of the data set.
        folder: in which its searches are kept.
        problem: with all objectives that it has, and their true values.
        accuracy: (rows, seeds) percent, NaN where a row has fewer seeds.
        marks: evaluations after which the searches of each of its tracks are measured.
    """

    name: str
    folder: str
    problem: Problem
    accuracy: Numbers
    marks: Mapping[str, Sequence[int]]

    @property
    def truth(self) -> Numbers:
        """(rows,) percent."""
        return -self.problem.losses[:, 0]

    def as_seen(self, name: str, seed: int) -> Problem:
        """What a search of the track called `name` is told."""
        count = OBJECTIVES[name]
        losses = self.problem.losses[:, :count]
        if name == "noisy":
            losses = -_measures.one_seed(self.accuracy, seed)[:, None]
        return Problem(self.problem.space, self.problem.objectives[:count], self.problem.points, losses)


def load(name: str) -> Data:
    """The table of a data set.

    Raises:
        SlimsearchError: it is not there.
    """
    objectives = (
        Objective("val_accuracy", "maximize"), Objective("params", "minimize"), Objective("latency_ms", "minimize"),
    )  # fmt: skip
    if name == LENET:
        return _load_lenet(objectives[:2])
    cells = _nasbench201.load(name)
    space = _nasbench201.space(cells)
    points: list[Any] = [{}] * len(cells.accuracy)
    for point in space.grid():
        points[_nasbench201.index(point)] = point
    losses = np.column_stack([-cells.mean, cells.params, 1000 * cells.latency])
    return Data(name, name, Problem(space, objectives, points, losses), cells.accuracy, _MARKS)


def _load_lenet(objectives: tuple[Objective, ...]) -> Data:
    if not LENET_TABLE.is_file():
        raise SlimsearchError(f"--datasets {LENET}: there is no table '{LENET_TABLE}'")
    table = TableEvaluator(LENET_TABLE)
    for metric in ("val_accuracy", "params"):
        if metric not in table.metrics:
            raise SlimsearchError(f"'{LENET_TABLE}' has no column {metric}")
    points = list(table.space.grid())
    losses = np.zeros((len(points), 2))
    for row, point in enumerate(points):
        task = Task(number=row, candidate=table.space.candidate(point), fidelity=table.epochs, seed=0, directory=Path())
        metrics = table.evaluate(task, report=lambda epoch, metrics: True).metrics
        losses[row] = -100 * metrics["val_accuracy"], metrics["params"]
    # Rows are known by their places: another table has a folder of its own.
    folder = f"{LENET}-{hashlib.sha256(LENET_TABLE.read_bytes()).hexdigest()[:8]}"
    return Data(LENET, folder, Problem(table.space, objectives, points, losses), -losses[:, :1], _LENET_MARKS)
