"""A user's function: its arguments, its result, and early stopping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import FunctionEvaluator, Outcome, Task
from slimsearch.search_spaces import Candidate, ChoiceSpace

SPACE = ChoiceSpace({"width": [8, 16]}, known=lambda point: {"params": 10.0 * point["width"], "macs": 1.0})


def call(
    function: Callable[..., Any], stop_at: int | None = None
) -> tuple[Outcome, list[tuple[int, dict[str, float]]]]:
    told: list[tuple[int, dict[str, float]]] = []

    def report(epoch: int, metrics: Mapping[str, float]) -> bool:
        told.append((epoch, dict(metrics)))
        return epoch != stop_at

    task = Task(3, Candidate({"width": 16}), 7, 42, Path("folder"))
    return FunctionEvaluator(function, SPACE).evaluate(task, report=report), told


def test_arguments_are_given_by_name() -> None:
    def evaluate(candidate: dict[str, int], directory: Path, seed: int, *, epochs: int, other: int = 5) -> Any:
        assert candidate == {"width": 16}
        assert directory == Path("folder")
        return {"sum": seed + epochs + other}

    assert call(evaluate)[0].metrics["sum"] == 54
    assert call(lambda epochs: {"width": epochs["width"]})[0].metrics["width"] == 16
    assert call(lambda candidate, **others: {"others": len(others)})[0].metrics["others"] == 0


def test_known_costs_are_told_first_and_merged() -> None:
    outcome, told = call(lambda candidate: {"val_accuracy": np.float32(0.5), "macs": torch.tensor(2)})
    assert told == [(0, {"params": 160.0, "macs": 1.0})]
    assert outcome.metrics == {"params": 160.0, "val_accuracy": 0.5, "macs": 2.0}
    assert all(type(value) is float for value in outcome.metrics.values())


def test_a_candidate_ruled_out_by_its_costs_is_not_evaluated() -> None:
    def evaluate(candidate: object) -> dict[str, float]:
        raise AssertionError

    assert call(evaluate, stop_at=0)[0].metrics == {"params": 160.0, "macs": 1.0}


def test_report_returns_false_to_stop() -> None:
    answers = []

    def evaluate(candidate: object, report: Callable[..., bool], epochs: int) -> dict[str, float]:
        for epoch in range(1, epochs + 1):
            answers.append(report(np.int64(epoch), {"loss": np.float64(1 / epoch)}))
        return {"loss": 0.0}

    outcome, told = call(evaluate, stop_at=2)
    # Later reports of a stopped trial are ignored.
    assert answers == [True, *[False] * 6]
    assert told[1:] == [(1, {"loss": 1.0}), (2, {"loss": 0.5})]
    assert type(told[1][0]) is int
    assert outcome.metrics == {"params": 160.0, "macs": 1.0}
    assert call(evaluate)[0].metrics["loss"] == 0.0


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (0.5, "float, not a dict"),
        (None, "NoneType, not a dict"),
        ({"loss": "low"}, "'loss': 'low', which is not a number"),
        ({"loss": "0.5"}, "'loss': '0.5', which is not a number"),
        ({"loss": None}, "'loss': None"),
        ({"loss": 10**400}, "'loss': 1000"),
        ({"loss": np.ones((9, 3))}, "'loss': array"),
        ({"loss": torch.ones(3, 3)}, "'loss': tensor"),
        ({"good": 1, "loss": float("nan")}, "metric 'loss' is nan"),
        ({"loss": -np.inf}, "metric 'loss' is -inf"),
    ],
)
def test_a_result_that_is_no_dict_of_finite_numbers_is_a_clear_error(found: Any, message: str) -> None:
    def reporting(candidate: object, report: Callable[..., bool]) -> Any:
        return report(1, found)

    for function in (lambda candidate: found, reporting):
        with pytest.raises(SlimsearchError, match=message) as caught:
            call(function)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 160


@pytest.mark.parametrize("epoch", [0, -1, 1.5, "1"])
def test_epochs_are_counted_from_one(epoch: Any) -> None:
    with pytest.raises(SlimsearchError, match="counted from 1"):
        call(lambda candidate, report: report(epoch, {}))
