"""Candidates that are already dominated on cost are ruled out before training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slimsearch.evaluators import Objective
from slimsearch.loop.proposals import dominated_on_cost
from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import COMPLETE, RULED_OUT, SEARCH, Trial
from slimsearch.report.run_summary import savings
from slimsearch.search_spaces import Candidate

OBJECTIVES = (
    Objective("val_accuracy", "maximize"), Objective("latency_ms", "minimize"), Objective("size_kib", "minimize"),
)  # fmt: skip
RANKING = Ranking(OBJECTIVES)


def trial(number: int, width: int, accuracy: float, latency: float, size: float, **recipe: dict[str, object]) -> Trial:
    metrics = {"val_accuracy": accuracy, "latency_ms": latency, "size_kib": size, "val_images": 1000.0}
    return Trial(number, Candidate({"width": width}, recipe), SEARCH, COMPLETE, 1, 0, metrics=metrics)


PARENT, BETTER = trial(0, 8, 0.95, 1.0, 100.0), trial(1, 4, 0.98, 0.4, 40.0)
PRUNED = Candidate({"width": 8}, {"prune": {}})
COSTS = {"latency_ms": 0.5, "size_kib": 50.0}


def test_dominated_by_what_its_architecture_could_reach_at_best() -> None:
    said = dominated_on_cost(RANKING, PRUNED, COSTS, [PARENT, BETTER])
    assert said == "dominated by trial 1 even at 96.38%: its architecture has had 95.00%"


@pytest.mark.parametrize(
    ("candidate", "known", "trials"),
    [
        (PRUNED, COSTS, [PARENT]),  # nobody dominates it
        (PRUNED, {**COSTS, "size_kib": 30.0}, [PARENT, BETTER]),  # it is smaller
        (PRUNED, {**COSTS, "latency_ms": 0.41}, [PARENT, BETTER]),  # or as fast, as far as can be told
        (PRUNED, COSTS, [trial(0, 8, 0.97, 1.0, 100.0), BETTER]),  # two standard errors more are enough
        (PRUNED, COSTS, [BETTER]),  # its architecture is not known
        (PRUNED, {"size_kib": 50.0}, [PARENT, BETTER]),  # its latency is not
        (replace(PRUNED, training={"learning_rate": 0.1}), COSTS, [PARENT, BETTER]),  # it is trained otherwise
        (PRUNED, COSTS, [PARENT, replace(BETTER, kind="step")]),  # what dominates it is no result
    ],
)
def test_what_may_be_on_the_front_is_trained(
    candidate: Candidate, known: dict[str, float], trials: list[Trial]
) -> None:
    assert dominated_on_cost(RANKING, candidate, known, trials) is None


def test_a_metric_may_be_in_percent() -> None:
    better = trial(1, 4, 98.0, 0.4, 40.0)
    assert dominated_on_cost(RANKING, PRUNED, COSTS, [trial(0, 8, 95.0, 1.0, 100.0), better]) is not None
    assert dominated_on_cost(RANKING, PRUNED, COSTS, [trial(0, 8, 99.0, 1.0, 100.0), better]) is None


def test_epochs_on_the_way_count_too() -> None:
    pruned = trial(0, 8, 0.90, 0.8, 90.0, prune={"sparsity": 0.9})
    assert dominated_on_cost(RANKING, PRUNED, COSTS, [pruned, BETTER]) is not None
    seen = replace(pruned, curve=({"epoch": 1.0, "val_accuracy": 0.975},))
    assert dominated_on_cost(RANKING, PRUNED, COSTS, [seen, BETTER]) is None


def test_what_was_saved() -> None:
    trained = [replace(PARENT, metrics={**PARENT.metrics, "training_seconds": 10.0, "seconds_saved": 30.0})] * 3
    vain = [replace(PARENT, state=RULED_OUT, metrics={})] * 2
    assert savings([PARENT]) is None
    saved = savings([*trained, *vain])
    assert saved is not None
    assert (saved.candidates, saved.ruled_out) == (5, 2)
    assert (saved.ruled_out_seconds, saved.reused_seconds) == (20.0, 90.0)
