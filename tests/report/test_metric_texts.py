"""Metrics as text."""

from __future__ import annotations

from typing import Any

import pytest

from slimsearch.evaluators import Objective
from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.report.tables import best_lines, metric_cells, metric_columns, metrics_text, seed_lines


@pytest.mark.parametrize("accuracy", [0.9125, 91.25])
def test_an_accuracy_is_shown_in_percent_whether_it_is_a_share_or_not(accuracy: float) -> None:
    metrics = {"val_accuracy": accuracy, "test_accuracy": accuracy, "latency_ms": 0.02, "size_kib": 4.0}
    worse = {name: value / 100 for name, value in metrics.items()}
    columns = metric_columns([metrics, worse], [Objective("val_accuracy", "maximize")])
    over_seeds = {"mean": accuracy, "standard_deviation": accuracy / 100}
    seeds = {"trainings": 2, "trials": [0, 1], "val_accuracy": over_seeds, "latency_ms": over_seeds}
    (line,) = seed_lines([{"trial": 0, "over_seeds": seeds}])
    cells = metric_cells(metrics, columns)
    assert [cells.count("91.25"), len(cells)] == [2, 4]
    assert metric_cells(worse, columns)[:2] in (["0.91"] * 2, ["0.9125"] * 2)
    assert metrics_text(metrics) in ("91.25%  0.02 ms  4.0 KiB", "accuracy 91.25  0.02 ms  4.0 KiB")
    models: list[dict[str, Any]] = [
        {"trial": number, "on_front": True, "metrics": one, "cannot_be_told_from": {}}
        for number, one in enumerate((metrics, worse))
    ]
    best, _, _ = best_lines(models, Ranking.of(Configuration(space="lenet")))
    assert best == f"best {'val %' if accuracy < 1 else 'val_accuracy'}: trial 0"
    assert " 91.25 ± 0.91" in line
    assert "latency" not in line
