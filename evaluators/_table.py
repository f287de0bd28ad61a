"""A table of architectures and metrics as an evaluator: what was measured once is searched in seconds."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluators._objective import DIRECTIONS
from evaluators._task import Outcome, Report, Task
from search_spaces import Candidate, ChoiceSpace, Point
from slimsearch_errors import SlimsearchError

_COSTS = ("latency_ms", "size_kib", "params", "macs")
_EPOCH = "@"


class TableSpace(ChoiceSpace):
    """The architectures that a table has, and no others.

    Args:
        choices: label to its values.
        points: every architecture, as JSON text.
        rows: what is known of each before it is evaluated, by the candidate's key.
    """

    def __init__(
        self, choices: Mapping[str, list[Any]], points: Sequence[str], rows: Mapping[str, Mapping[str, float]]
    ) -> None:
        super().__init__(choices)
        self._rows = rows
        self._points = [json.loads(text) for text in points]

    def canonical(self, point: Point) -> dict[str, Any]:
        found = super().canonical(point)
        if Candidate(found).key not in self._rows:
            raise SlimsearchError(f"the table has no row for {found}")
        return found

    @property
    def size(self) -> int:
        return len(self._points)

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        return dict(self._points[int(rng.integers(len(self._points)))])

    def grid(self) -> Iterator[dict[str, Any]]:
        return iter([dict(point) for point in self._points])

    def known(self, point: Point) -> Mapping[str, float]:
        return self._rows[Candidate(self.canonical(point)).key]


class TableEvaluator:
    """Looks candidates up in a CSV file.

    A header of a metric is one of val_accuracy, val_loss, latency_ms, size_kib, params and macs, or a name of one's own
    with its direction (``energy:min``). ``val_accuracy@3`` is the accuracy after epoch 3: with such columns a trial is
    reported epoch by epoch, and `scheduler` can end it early. All other columns are choices; their cells are read as
    JSON where they are JSON, else as text. Latency, size, parameters and MACs are known before a candidate is evaluated.

    Args:
        path: of the file, UTF-8.

    Raises:
        SlimsearchError: it cannot be read, has no choices or no metrics, an empty or a wrong cell, or a row twice.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open(encoding="utf-8", newline="") as file:
                header, *rows = [row for row in csv.reader(file) if row]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise SlimsearchError(f"cannot read the table '{path}': {error}") from None
        except ValueError:
            raise SlimsearchError(f"the table '{path}' is empty") from None
        names = [name.strip() for name in header]
        metrics = {name: _metric(name) for name in names if _is_metric(name)}
        labels = [name for name in names if name not in metrics]
        if not labels or not metrics or not rows:
            raise SlimsearchError(
                f"the table '{path}' needs columns of choices, of metrics ({', '.join(DIRECTIONS)}, or name:min or "
                "name:max) and rows"
            )
        self.directions = {m: d for m, d in map(_direction, metrics) if d}
        self._rows: dict[str, dict[str, float]] = {}
        self._curves: dict[str, dict[int, dict[str, float]]] = {}
        values: dict[str, list[Any]] = {label: [] for label in labels}
        points: list[str] = []
        for line, row in enumerate(rows, start=2):
            if len(row) != len(names):
                raise SlimsearchError(f"'{path}', line {line}: {len(row)} cells, the header has {len(names)}")
            cells = dict(zip(names, row, strict=True))
            point = {label: _value(cells[label]) for label in labels}
            for label in labels:
                if point[label] not in values[label]:
                    values[label].append(point[label])
            ordered = {label: point[label] for label in sorted(labels)}
            key = Candidate(ordered).key
            if key in self._rows:
                raise SlimsearchError(f"'{path}', line {line}: {point} is there twice")
            self._rows[key], self._curves[key] = {}, {}
            points.append(json.dumps(ordered))
            for name, (metric, epoch) in metrics.items():
                try:
                    number = float(cells[name])
                except ValueError:
                    raise SlimsearchError(f"'{path}', line {line}: {name} is '{cells[name]}', no number") from None
                if epoch is None:
                    self._rows[key][metric] = number
                else:
                    self._curves[key].setdefault(epoch, {})[metric] = number
        known = {key: {m: row[m] for m in _COSTS if m in row} for key, row in self._rows.items()}
        self.space = TableSpace(values, points, known)

    @property
    def metrics(self) -> list[str]:
        """What the table has of each architecture."""
        return sorted(next(iter(self._rows.values())))

    @property
    def epochs(self) -> int:
        """How many epochs there are metrics for; 1 where there are none."""
        return max(next(iter(self._curves.values())), default=1)

    def evaluate(self, task: Task, *, report: Report) -> Outcome:
        """What the table says of the task's architecture, epoch by epoch."""
        key = Candidate(self.space.canonical(task.candidate.architecture)).key
        known = dict(self.space.known(task.candidate.architecture))
        if not report(0, known):
            return Outcome(known)
        for epoch, metrics in sorted(self._curves[key].items()):
            if epoch > task.epochs_done and not report(epoch, metrics):
                return Outcome(known)
        return Outcome(self._rows[key])


def _is_metric(name: str) -> bool:
    metric, _, direction = name.partition(_EPOCH)[0].partition(":")
    return direction in ("min", "max") or (not direction and metric in DIRECTIONS)


def _metric(name: str) -> tuple[str, int | None]:
    metric, at, epoch = name.partition(_EPOCH)
    if at and not epoch.isdigit():
        raise SlimsearchError(f"the table's column '{name}' is not of the form metric@epoch")
    return metric.partition(":")[0], int(epoch) if at else None


def _direction(name: str) -> tuple[str, str | None]:
    metric, _, direction = name.partition(_EPOCH)[0].partition(":")
    return metric, {"min": "minimize", "max": "maximize"}.get(direction, DIRECTIONS.get(metric))


def _value(cell: str) -> Any:
    try:
        return json.loads(cell)
    except ValueError:
        return cell
