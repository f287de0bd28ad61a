"""The lineage of a trial: the trials that it was made from, its steps, and its repetitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from slimsearch import compression
from slimsearch.record.trial import COMPLETE, COMPRESSION, REPEAT, SEARCH, STEP, Trial


def repetitions(trial: Trial, trials: Sequence[Trial]) -> list[Trial]:
    """The finished repetitions of `trial`."""
    return [t for t in trials if t.kind == REPEAT and t.repeats == trial.number and t.state == COMPLETE]


def path_of(trial: Trial, trials: Sequence[Trial]) -> list[tuple[compression.PlainRecipe, Trial, float]]:
    """How a finalist came to be, from its trained parent to itself.

    Returns:
        for each step what was done to the network, the trial that has the file's metrics, and the seconds that the
        step's training took.
    """
    if trial.kind == COMPRESSION:
        line = [trial]
        while line[0].kind == COMPRESSION and line[0].parent is not None:
            line.insert(0, trials[line[0].parent])
        taken = [t.metrics.get("training_seconds", 0.0) for t in line]
    else:
        found = (scored(trials, trial, recipe) for recipe in beginnings(trial))
        line = [*(t for t in found if t is not None), trial]
        # Each trial went through all steps up to its own, or found them made.
        whole = [t.metrics.get("training_seconds", 0.0) + t.metrics.get("seconds_saved", 0.0) for t in line]
        taken = [max(0.0, now - before) for before, now in zip([0.0, *whole], whole, strict=False)]
    done: compression.PlainRecipe = {}
    path: list[tuple[compression.PlainRecipe, Trial, float]] = []
    for one, seconds in zip(line, taken, strict=True):
        path.append(({s: options for s, options in one.candidate.recipe.items() if s not in done}, one, seconds))
        done = one.candidate.recipe
    return path


def beginnings(trial: Trial) -> list[compression.PlainRecipe]:
    """The recipes of the steps before a trial of the search itself: the empty one, and one stage more each time."""
    if trial.kind != SEARCH or not trial.candidate.recipe:
        return []
    done: dict[str, Mapping[str, object]] = {}
    beginnings: list[compression.PlainRecipe] = []
    for group in compression.Recipe.from_dict(trial.candidate.recipe).groups:
        beginnings.append(done)
        done = {**done, **group.to_dict()}
    return beginnings


def scored(trials: Sequence[Trial], trial: Trial, recipe: compression.PlainRecipe) -> Trial | None:
    """The trial that has scored a step of another one."""
    candidate = replace(trial.candidate, recipe=recipe)
    return next(
        (
            t
            for t in trials
            if t.state == COMPLETE and t.kind in (SEARCH, STEP) and t.seed == trial.seed and t.candidate == candidate
        ),
        None,
    )
