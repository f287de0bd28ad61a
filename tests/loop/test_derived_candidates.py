"""Candidates that need no training: which are scored, and which number formats are left out."""

from __future__ import annotations

from typing import Any

from slimsearch.evaluators import Objective
from slimsearch.loop.derived_candidates import DerivedCandidates
from slimsearch.record.trial import COMPLETE, SEARCH, Trial
from slimsearch.search_spaces import ChoiceSpace, JointSpace, Point, RecipeSpace
from slimsearch.strategies.samplers import History, Observation, load_sampler

OBJECTIVES = [
    Objective("val_accuracy", "maximize"), Objective("latency_ms", "minimize"), Objective("size_kib", "minimize"),
]  # fmt: skip
RECIPES = {
    "prune": {"use": [True, False]}, "quantize": {"use": [True, False]},
    "weight_only": {"use": {"values": [True, False], "when": {"quantize.use": False}}},
}  # fmt: skip


def steps(recipe: Any) -> list[tuple[Any, float]]:
    return [({stage: options}, float(stage == "prune")) for stage, options in recipe.items()]


SPACE = JointSpace(ChoiceSpace({"width": [8, 16, 24, 32]}), RecipeSpace(RECIPES), steps)


def point(width: int, *stages: str) -> dict[str, Any]:
    used = {f"{stage}.use": stage in stages for stage in ("prune", "quantize", "weight_only")}
    if used["quantize.use"]:
        del used["weight_only.use"]
    return SPACE.canonical({"width": width, **used})


class Searched:
    """Trials, told to derived candidates and to a history."""

    def __init__(self) -> None:
        self.derived = DerivedCandidates(SPACE, load_sampler("random"), OBJECTIVES)
        self.history, self.number = History(), 0

    def finish(self, found: Point, accuracy: float, latency: float, size: float, parent: int | None = None) -> None:
        metrics = {"val_accuracy": accuracy, "latency_ms": latency, "size_kib": size}
        trial = Trial(
            self.number, SPACE.candidate(found), SEARCH, COMPLETE, 1, 0, parent, metrics=metrics, labels=found
        )
        self.history.add(Observation(found, (-accuracy, latency, size)))
        self.derived.add(trial)
        self.number += 1

    def waiting(self) -> list[tuple[dict[str, Any], int]]:
        found = []
        while (one := self.derived.next(self.history)) is not None:
            found.append((SPACE.point(one[0]), one[1]))
        return found


def test_each_untried_candidate_comes_once_with_the_trial_that_trained_its_network() -> None:
    searched = Searched()
    searched.finish(point(8, "prune", "quantize"), 0.9, 1, 10)
    found = searched.waiting()
    assert all(parent == 0 for _, parent in found)
    expected = [
        point(8, *prune, *form)
        for prune in ((), ("prune",))
        for form in ((), ("quantize",), ("weight_only",))
        if (prune, form) != (("prune",), ("quantize",))
    ]
    assert sorted(map(str, (p for p, _ in found))) == sorted(map(str, expected))
    for derived, parent in found:
        searched.finish(derived, 0.9, 1, 10, parent)
    assert searched.waiting() == []


def test_a_number_format_that_was_worse_in_everything_is_not_tried_again_on_its_architecture() -> None:
    searched = Searched()
    searched.finish(point(8), 0.9, 1.0, 50)
    searched.waiting()
    searched.finish(point(8, "quantize"), 0.9, 2.0, 40, 0)
    searched.finish(point(8, "weight_only"), 0.9, 0.9, 12, 0)  # smaller and faster than both
    searched.finish(point(8, "prune"), 0.8, 0.8, 30)
    assert [p for p, _ in searched.waiting()] == [point(8, "prune", "weight_only")]
    searched.finish(point(16), 0.9, 1.0, 50)
    assert sorted(str(p) for p, _ in searched.waiting()) == sorted(
        map(str, (point(16, "quantize"), point(16, "weight_only")))
    )


def test_a_number_format_with_an_advantage_is_tried_again() -> None:
    searched = Searched()
    searched.finish(point(8), 0.90, 1.0, 50)
    searched.waiting()
    searched.finish(point(8, "quantize"), 0.91, 2.0, 60, 0)  # more accurate
    searched.finish(point(8, "weight_only"), 0.88, 0.9, 12, 0)  # less accurate
    searched.finish(point(8, "prune"), 0.8, 0.8, 30)
    assert len(searched.waiting()) == 2


def test_a_number_format_that_was_worse_in_everything_on_three_architectures_is_left_to_the_sampler() -> None:
    searched = Searched()
    for width, accuracy in ((8, 0.9), (16, 0.9), (24, 0.9)):
        searched.finish(point(width), 0.9, 1.0, 50)
        assert point(width, "quantize") in [p for p, _ in searched.waiting()]
        searched.finish(point(width, "quantize"), accuracy, 2.0, 60, searched.number - 1)
    searched.finish(point(32), 0.9, 1.0, 50)
    assert [p for p, _ in searched.waiting()] == [point(32, "weight_only")]


def test_a_number_format_that_had_an_advantage_once_is_tried_on_others() -> None:
    searched = Searched()
    for width, accuracy in ((8, 0.9), (16, 0.91), (24, 0.9)):
        searched.finish(point(width), 0.9, 1.0, 50)
        searched.waiting()
        searched.finish(point(width, "quantize"), accuracy, 2.0, 60, searched.number - 1)
    searched.finish(point(32), 0.9, 1.0, 50)
    assert len(searched.waiting()) == 2
