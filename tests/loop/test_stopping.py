"""When a search has found enough."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Limit, Objective
from slimsearch.loop.stopping import Stopping
from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import COMPLETE, FAILED, RULED_OUT, SEARCH, STOPPED, Trial
from slimsearch.search_spaces import Candidate

ACCURACY, SIZE = Objective("val_accuracy", "maximize"), Objective("size_kib", "minimize")
ONE, TWO = Ranking((ACCURACY,)), Ranking((ACCURACY, SIZE))
SMALL = Limit("size_kib", 50.0, True, "--max-size-kib")

_numbers = count()


def trial(accuracy: float, size: float = 10.0, state: str = COMPLETE, **others: float) -> Trial:
    metrics = {"val_accuracy": accuracy, "size_kib": size, **others}
    number = next(_numbers)
    return Trial(number, Candidate({"a": number}), SEARCH, state, 1, 0, metrics=metrics)


def ended_after(
    stopping: Stopping, trials: Sequence[Trial], scores: Sequence[float | None] | None = None
) -> int | None:
    """How many trials it took."""
    for position, (found, score) in enumerate(zip(trials, scores or [None] * len(trials), strict=True), start=1):
        stopping.update(found, score)
        if stopping.reason is not None:
            return position
    return None


def test_a_goal_is_reached_by_one_trial() -> None:
    stopping = Stopping.of(TWO, "val_accuracy=0.9, size_kib=20", None)
    # The first is large, the second not accurate; the last is exactly what was asked for.
    trials = [trial(0.95, 30), trial(0.85, 5), trial(0.9, 20)]
    assert ended_after(stopping, trials) == 3
    assert stopping.reason == f"trial {trials[2].number} has reached --stop-at val_accuracy=0.9, size_kib=20"
    stopping.update(trial(1.0), None)
    assert stopping.reason.startswith(f"trial {trials[2].number} ")


def test_a_goal_counts_within_limits_only() -> None:
    limited = Ranking((ACCURACY,), (SMALL,))
    stopping = Stopping.of(limited, "val_accuracy=0.9", None)
    assert ended_after(stopping, [trial(0.99, 60), trial(0.8), trial(0.9, 50)]) == 3


def test_a_goal_of_a_metric_of_ones_own_and_of_one_that_is_not_there() -> None:
    ranking = Ranking((Objective("energy", "maximize"), ACCURACY))
    stopping = Stopping.of(ranking, "energy=5", None)
    assert ended_after(stopping, [trial(1, energy=1), trial(0, energy=4), trial(0, energy=5)]) == 3
    assert ended_after(Stopping.of(TWO, "latency_ms=5", None), [trial(1.0), trial(1.0, latency_ms=6)]) is None


@pytest.mark.parametrize("state", [FAILED, RULED_OUT, STOPPED])
def test_only_complete_trials_count(state: str) -> None:
    others = [trial(1.0, 1.0, state) for _ in range(9)]
    assert ended_after(Stopping.of(ONE, "val_accuracy=0.5", 3), others) is None
    # Nor do they end a row, or hide a gain.
    row = [trial(0.5), trial(0.4), trial(0.9, state=state), trial(0.4), trial(0.4)]
    assert ended_after(Stopping.of(ONE, None, 3), row) == 5


def test_patience_with_one_objective() -> None:
    stopping = Stopping.of(ONE, None, 2)
    # Equal is no gain; smaller, where size is no objective, neither.
    assert ended_after(stopping, [trial(0.5), trial(0.5, 1), trial(0.6), trial(0.55), trial(0.6)]) == 5
    assert stopping.reason == "no better one in the last 2 trials (--patience 2)"


def test_patience_with_several_objectives() -> None:
    trials = [
        trial(0.5, 20),
        trial(0.4, 10),  # a gain: smaller
        trial(0.4, 15),  # dominated
        trial(0.45, 15),  # a gain: between the two
        trial(0.45, 15),  # there already
        trial(0.9, 1),  # a gain: better than all
        trial(0.5, 20),  # on the front once
        trial(0.8, 2),
    ]
    stopping = Stopping.of(TWO, None, 2)
    assert ended_after(stopping, trials) == 8
    assert stopping.reason == "no gain in hypervolume in the last 2 trials (--patience 2)"


def test_patience_with_the_weighted_score() -> None:
    weighted = Ranking((ACCURACY, SIZE), weighted=True)
    trials = [trial(0.5, 20), trial(0.4, 10), trial(0.9, 30), trial(0.3, 1)]
    stopping = Stopping.of(weighted, None, 2)
    # The second and the last would be on the front; by their scores they are no better.
    assert ended_after(stopping, trials[:2] + trials[3:], [0.5, 0.4, 0.5]) == 3
    assert stopping.reason == "no better one in the last 2 trials (--patience 2)"
    assert ended_after(Stopping.of(weighted, None, 2), trials, [0.5, 0.4, 0.6, 0.5]) is None


def test_what_breaks_a_limit_is_no_gain() -> None:
    limited = Ranking((ACCURACY, SIZE), (SMALL,))
    assert ended_after(Stopping.of(limited, None, 2), [trial(0.5, 40), trial(0.9, 51), trial(0.95, 60)]) == 3
    # And hides none.
    assert ended_after(Stopping.of(limited, None, 2), [trial(0.9, 60), trial(0.5, 40), trial(0.6, 45)]) is None


def test_neither_goal_nor_patience_never_ends() -> None:
    assert ended_after(Stopping.of(TWO, None, None), [trial(0.5) for _ in range(50)]) is None


@pytest.mark.parametrize(
    ("stop_at", "message"),
    [
        ("speed=3", "--stop-at names 'speed', .*known metrics: .*size_kib.*val_accuracy"),
        ("val_accuracy", "--stop-at 'val_accuracy' is not of the form metric=number"),
        ("val_accuracy=high", "not of the form"),
    ],
)
def test_goals_that_are_none_are_refused(stop_at: Any, message: str) -> None:
    with pytest.raises(SlimsearchError, match=message):
        Stopping.of(TWO, stop_at, None)
