"""The lineage of trials: parents, steps and repetitions; their networks; and checks that a record is consistent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from slimsearch.compression import PlainRecipe, Recipe
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Artifact
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import COMPLETE, COMPRESSION, REPEAT, SEARCH, STEP, Trial
from slimsearch.search_spaces import Space


def compression_lineage(trial: Trial, trials: Sequence[Trial]) -> list[Trial]:
    """The trained network, the trials that compressed it one after the other, and `trial` as the last."""
    lineage = [trial]
    while lineage[0].kind == COMPRESSION and lineage[0].parent is not None:
        lineage.insert(0, trials[lineage[0].parent])
    return lineage


def repetitions(trial: Trial, trials: Sequence[Trial]) -> list[Trial]:
    """The finished repetitions of `trial`."""
    return [t for t in trials if t.kind == REPEAT and t.repeats == trial.number and t.state == COMPLETE]


def steps_to(trial: Trial, trials: Sequence[Trial]) -> list[tuple[PlainRecipe, Trial, float]]:
    """The steps from a trained network to a finalist.

    Returns:
        for each step the stages applied, the trial that has the file's metrics, and seconds of training.
    """
    if trial.kind == COMPRESSION:
        line = compression_lineage(trial, trials)
        seconds = [t.metrics.get("training_seconds", 0.0) for t in line]
    else:
        earlier = (scored_step(trials, trial, recipe) for recipe in partial_recipes(trial))
        line = [*(t for t in earlier if t is not None), trial]
        # Each trial went through all steps up to its own, or reused stored networks.
        whole = [t.metrics.get("training_seconds", 0.0) + t.metrics.get("seconds_saved", 0.0) for t in line]
        seconds = [max(0.0, now - before) for before, now in zip([0.0, *whole], whole, strict=False)]
    done: PlainRecipe = {}
    steps: list[tuple[PlainRecipe, Trial, float]] = []
    for one, spent in zip(line, seconds, strict=True):
        steps.append(({s: options for s, options in one.candidate.recipe.items() if s not in done}, one, spent))
        done = one.candidate.recipe
    return steps


def partial_recipes(trial: Trial) -> list[PlainRecipe]:
    """The recipes of the steps before a search trial: the empty one, then each with one more group of stages."""
    if trial.kind != SEARCH or not trial.candidate.recipe:
        return []
    done: dict[str, Mapping[str, object]] = {}
    recipes: list[PlainRecipe] = []
    for group in Recipe.from_dict(trial.candidate.recipe).groups:
        recipes.append(done)
        done = {**done, **group.to_dict()}
    return recipes


def scored_step(trials: Sequence[Trial], trial: Trial, recipe: PlainRecipe) -> Trial | None:
    """The trial that scored the network of `trial` after the stages in `recipe`."""
    candidate = replace(trial.candidate, recipe=recipe)
    return next(
        (
            t
            for t in trials
            if t.state == COMPLETE and t.kind in (SEARCH, STEP) and t.seed == trial.seed and t.candidate == candidate
        ),
        None,
    )


def artifact(trial: Trial, record: Record, directory: RunDirectory) -> Artifact:
    """The network of a trial; fetches its files if another driver trained it."""
    record.fetch(trial)
    origin = trial
    while origin.parent is not None:
        origin = record.trials[origin.parent]
    folder = directory.trial_directory(trial.number)
    return Artifact(folder, trial.candidate.architecture, trial.candidate.recipe, origin.seed)


def teacher(ranking: Ranking, record: Record, directory: RunDirectory) -> Artifact | None:
    """The network of the search that is best in the leading metric, for distillation."""
    leading = ranking.leading
    searched = ranking.feasible([t for t in record.trials if t.kind == SEARCH and leading.metric in t.metrics])
    best = min(searched, key=lambda t: (leading.loss(t.metrics), t.number), default=None)
    return None if best is None else artifact(best, record, directory)


def check_record(record: Record, space: Space, recipe: Recipe, metrics: Sequence[str]) -> None:
    """Check that this run could have recorded every trial.

    A stage may name a Python file that a worker would run, so only stages of the run's own recipe are accepted.
    Complete trials need all `metrics`.

    Raises:
        SlimsearchError: a trial does not belong to this run.
    """
    for trial in record.trials:
        wrong = _wrong(trial, record.trials, space, recipe, metrics)
        if wrong is not None:
            raise SlimsearchError(f"trial {trial.number} of the record does not belong to this run: {wrong}")


def _wrong(trial: Trial, trials: Sequence[Trial], space: Space, recipe: Recipe, metrics: Sequence[str]) -> str | None:
    try:
        found = space.candidate(trial.point)
        if space.point(found) != dict(trial.point):
            return "it has values of inactive choices"
        if trial.kind == COMPRESSION:
            if trial.parent is None or not 0 <= trial.parent < trial.number:
                return f"its parent, trial {trial.parent}, is missing"
            own = recipe.to_dict()
            for stage, options in trial.candidate.recipe.items():
                if stage not in own or own[stage] != dict(options):
                    return f"the run's recipe has no stage '{stage}' with {dict(options)}"
            parent = trials[trial.parent].candidate.recipe
            if not Recipe.from_dict(trial.candidate.recipe).begins_with(Recipe.from_dict(parent)):
                return f"recipe {dict(trial.candidate.recipe)} does not begin with {dict(parent)}"
            found = replace(found, recipe=trial.candidate.recipe)
        elif trial.kind == REPEAT:
            if trial.repeats is None or not 0 <= trial.repeats < trial.number:
                return f"trial {trial.repeats}, which it repeats, is missing"
            found = trials[trial.repeats].candidate
        elif trial.kind == STEP:
            if trial.repeats is None or not 0 <= trial.repeats < trial.number:
                return f"trial {trial.repeats}, of which it is a step, is missing"
            stages = [*trial.candidate.recipe.items()]
            if json.dumps([*found.recipe.items()][: len(stages)]) != json.dumps(stages):
                return f"recipe {dict(found.recipe)} does not begin with {dict(trial.candidate.recipe)}"
            found = replace(found, recipe=trial.candidate.recipe)
        if found != trial.candidate:
            return "its candidate does not match its parameters"
    except SlimsearchError as error:
        return str(error)
    if trial.state == COMPLETE:
        for metric in metrics:
            if not math.isfinite(trial.metrics.get(metric, math.nan)):
                return f"it is complete, but its {metric} is missing"
    return None
