"""Evaluation by looking candidates up in a CSV table."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError, reason
from slimsearch.evaluators.objective import COSTS, DIRECTIONS
from slimsearch.evaluators.task import Outcome, ReportEpoch, Task
from slimsearch.search_spaces import Candidate, ChoiceSpace, Point

_EPOCH = "@"
_INACTIVE = -1


class TableSpace(ChoiceSpace):
    """The architectures of a table, and no others. A choice without a value in a row is inactive there.

    Args:
        choices: label to values.
        points: all architectures as JSON text, without inactive choices.
        known: metrics of each architecture that are known before it is evaluated.

    Raises:
        SlimsearchError: a combination of values stands for two architectures.
    """

    def __init__(
        self, choices: Mapping[str, list[Any]], points: Sequence[str], known: Sequence[Mapping[str, float]]
    ) -> None:
        super().__init__(choices)
        self._points = [json.loads(text) for text in points]
        self._metrics = known
        self._cells = np.array(
            [
                [c.index(point[c.label]) if c.label in point else _INACTIVE for c in self.choices]
                for point in self._points
            ]
        )  # (rows, choices)
        # For each set of active columns, the rows by their cells.
        self._rows: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}
        for row, cells in enumerate(self._cells.tolist()):
            active = tuple(column for column, cell in enumerate(cells) if cell != _INACTIVE)
            self._rows.setdefault(active, {})[tuple(cells[column] for column in active)] = row
        self._check_unambiguous()

    def canonical(self, point: Point) -> dict[str, Any]:
        return dict(self._points[self._row(point)])

    @property
    def size(self) -> int:
        return len(self._points)

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        return dict(self._points[int(rng.integers(len(self._points)))])

    def grid(self) -> Iterator[dict[str, Any]]:
        return iter([dict(point) for point in self._points])

    def mutate(self, point: Point, rng: np.random.Generator) -> dict[str, Any]:
        around = list(self.neighbours(point, rng))
        return around[int(rng.integers(len(around)))] if around else self.canonical(point)

    def neighbours(self, point: Point, rng: np.random.Generator | None = None) -> Iterator[dict[str, Any]]:
        """The points that differ in one of the choices that are active in both.

        Of several that differ only in what the change activates: the first, or a random one if `rng` is given.
        """
        own = self._cells[self._row(point)]
        differs = (self._cells != own) & (self._cells != _INACTIVE) & (own != _INACTIVE)  # (rows, choices)
        groups: dict[tuple[int, int], list[int]] = {}
        for row in np.flatnonzero(differs.sum(axis=1) == 1).tolist():
            column = int(differs[row].argmax())
            groups.setdefault((column, int(self._cells[row, column])), []).append(row)
        for _, rows in sorted(groups.items()):
            rows.sort(key=lambda row: tuple(self._cells[row].tolist()))
            yield dict(self._points[rows[int(rng.integers(len(rows))) if rng is not None else 0]])

    def known(self, point: Point) -> Mapping[str, float]:
        return self._metrics[self._row(point)]

    def _row(self, point: Point) -> int:
        unknown = [label for label in point if label not in self._by_label]
        if unknown:
            raise SlimsearchError(f"unknown label '{unknown[0]}'; the space has {', '.join(self._by_label)}")
        cells = [c.index(point[c.label]) if c.label in point else _INACTIVE for c in self.choices]
        for active, rows in self._rows.items():
            row = rows.get(tuple(cells[column] for column in active))
            if row is not None:
                return row
        for column, choice in enumerate(self.choices):
            if cells[column] == _INACTIVE and all(column in active for active in self._rows):
                raise SlimsearchError(f"label '{choice.label}' is missing")
        raise SlimsearchError(f"the table has no row for {dict(point)}")

    def _check_unambiguous(self) -> None:
        for (one, one_rows), (other, other_rows) in itertools.combinations(self._rows.items(), 2):
            shared = [column for column in one if column in other]
            by_cells = {tuple(self._cells[row, shared].tolist()): row for row in one_rows.values()}
            for row in other_rows.values():
                same = by_cells.get(tuple(self._cells[row, shared].tolist()))
                if same is not None:
                    raise SlimsearchError(
                        f"{self._points[same]} and {self._points[row]} differ only in blank cells; leave a cell blank "
                        "if the other choices make it inactive, and write null for a choice of nothing"
                    )


class TableEvaluator:
    """Looks candidates up in a CSV file.

    The header of a metric is val_accuracy, val_loss, latency_ms, size_kib, params or macs, or another name with its
    direction (``energy:min``). ``val_accuracy@3`` is the accuracy after epoch 3: such columns are reported epoch by
    epoch, so that a scheduler can end a trial early. A metric with such columns only has the value of its last epoch.

    All other columns are choices. Their cells are JSON values or text; a blank cell means that the other choices make
    this one inactive. Latency, size, parameters and MACs are known before a candidate is evaluated.

    Args:
        path: of the file, UTF-8.
        known: metrics that are known before a candidate is evaluated, in place of these.

    Raises:
        SlimsearchError: the file cannot be read, has no choices or no metrics, a wrong cell, or a duplicate row or
            column; or it has no metric of `known`.
    """

    def __init__(self, path: Path, known: Sequence[str] | None = None) -> None:
        try:
            # Spreadsheets start UTF-8 files with a byte order mark.
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file)
                (_, header), *rows = [(reader.line_num, row) for row in reader if row]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise SlimsearchError(f"cannot read the table '{path}': {reason(error)}") from None
        except ValueError:
            raise SlimsearchError(f"the table '{path}' is empty") from None
        names = [name.strip() for name in header]
        metrics = _metrics(names, path)
        labels = [name for name in names if name not in metrics]
        if not labels or not metrics or not rows:
            raise SlimsearchError(
                f"the table '{path}' needs columns of choices, of metrics ({', '.join(DIRECTIONS)}, or name:min or "
                "name:max) and rows"
            )
        self.directions = {m: d for m, d in map(_direction, metrics) if d}
        self._rows: dict[str, dict[str, float]] = {}
        self._curves: dict[str, dict[int, dict[str, float]]] = {}
        values: dict[str, dict[str, Any]] = {label: {} for label in labels}
        points: list[str] = []
        for line, row in rows:
            if len(row) != len(names):
                raise SlimsearchError(f"'{path}', line {line}: {len(row)} cells, the header has {len(names)}")
            cells = dict(zip(names, row, strict=True))
            point = {label: _value(cells[label]) for label in sorted(labels) if cells[label].strip()}
            for label, value in point.items():
                # By JSON text: 1, 1.0 and true are different values.
                values[label].setdefault(json.dumps(value), value)
            key = Candidate(point).key
            if key in self._rows:
                raise SlimsearchError(f"'{path}', line {line}: {point} is a duplicate")
            points.append(json.dumps(point))
            final: dict[str, float] = {}
            curve: dict[int, dict[str, float]] = {}
            for name, (metric, epoch) in metrics.items():
                number = _number(cells[name], f"'{path}', line {line}: {name}")
                (final if epoch is None else curve.setdefault(epoch, {}))[metric] = number
            ends = {metric: number for _, last in sorted(curve.items()) for metric, number in last.items()}
            self._rows[key], self._curves[key] = {**ends, **final}, curve
        for metric in known or ():
            if metric not in self.metrics:
                raise SlimsearchError(f"the table '{path}' has no metric '{metric}'; it has {', '.join(self.metrics)}")
        costs = [{m: row[m] for m in (COSTS if known is None else known) if m in row} for row in self._rows.values()]
        try:
            self.space = TableSpace({label: list(unique.values()) for label, unique in values.items()}, points, costs)
        except SlimsearchError as error:
            raise SlimsearchError(f"the table '{path}': {error}") from None

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics."""
        return sorted(next(iter(self._rows.values())))

    @property
    def epochs(self) -> int:
        """The last epoch with metrics; 1 if there are none by epoch."""
        return max(next(iter(self._curves.values())), default=1)

    def evaluate(self, task: Task, *, report: ReportEpoch) -> Outcome:
        """The metrics of the architecture of `task`, reported epoch by epoch."""
        key = Candidate(self.space.canonical(task.candidate.architecture)).key
        known = dict(self.space.known(task.candidate.architecture))
        if not report(0, known):
            return Outcome(known)
        for epoch, metrics in sorted(self._curves[key].items()):
            if epoch > task.epochs_done and not report(epoch, metrics):
                return Outcome(known)
        return Outcome(self._rows[key])


def _metrics(names: Sequence[str], path: Path) -> dict[str, tuple[str, int | None]]:
    """Metric columns: header to the metric's name and epoch, None for the final value."""
    own = {metric for metric, at, _ in (name.partition(_EPOCH) for name in names) if _is_metric(metric) and not at}
    own = {metric.partition(":")[0] for metric in own}
    columns: dict[str, tuple[str, int | None]] = {}
    unique: set[object] = set()
    for position, name in enumerate(names, start=1):
        if not name:
            raise SlimsearchError(f"the table '{path}': column {position} has no name")
        metric, at, epoch = name.partition(_EPOCH)
        column: object = name
        if _is_metric(metric) or _is_metric(name) or (at and metric in own):
            if at and not (epoch.isascii() and epoch.isdigit() and int(epoch) > 0):
                raise SlimsearchError(f"the table '{path}': column '{name}' is not metric@epoch with an epoch from 1")
            column = columns[name] = metric.partition(":")[0], int(epoch) if at else None
        if column in unique:
            raise SlimsearchError(f"the table '{path}' has two columns '{name}'")
        unique.add(column)
    return columns


def _is_metric(name: str) -> bool:
    metric, _, direction = name.partition(":")
    return direction in ("min", "max") or (not direction and metric in DIRECTIONS)


def _direction(name: str) -> tuple[str, str | None]:
    metric, _, direction = name.partition(_EPOCH)[0].partition(":")
    return metric, {"min": "minimize", "max": "maximize"}.get(direction, DIRECTIONS.get(metric))


def _value(cell: str) -> Any:
    try:
        value = json.loads(cell)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return cell.strip()
    return value


def _number(cell: str, where: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        raise SlimsearchError(f"{where} is '{cell}', not a number") from None
    if not math.isfinite(number):
        raise SlimsearchError(f"{where} is '{cell}', not a finite number")
    return number
