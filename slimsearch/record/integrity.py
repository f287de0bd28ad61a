"""What a record that was read must be before anything goes on from it: part of this run, and complete."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

from slimsearch.compression import Recipe
from slimsearch.errors import SlimsearchError
from slimsearch.record.record import Record
from slimsearch.record.trial import COMPLETE, COMPRESSION, REPEAT, STEP, Trial
from slimsearch.search_spaces import Space


def refuse_damage(record: Record, space: Space, recipe: Recipe, metrics: Sequence[str]) -> None:
    """See to it that every trial is one that this run could have recorded.

    A recipe is carried out in a worker, and a stage in it may be a file of somebody's: none but those that the run
    itself was told.

    Args:
        record: as it was read.
        space: of the architectures.
        recipe: of the run.
        metrics: that every complete trial has.

    Raises:
        SlimsearchError: one is not, in one line.
    """
    for trial in record.trials:
        wrong = _wrong(trial, record.trials, space, recipe, metrics)
        if wrong is not None:
            raise SlimsearchError(f"trial {trial.number} of the record is not one of this run: {wrong}")


def _wrong(trial: Trial, trials: Sequence[Trial], space: Space, recipe: Recipe, metrics: Sequence[str]) -> str | None:
    try:
        found = space.candidate(trial.point)
        if space.point(found) != dict(trial.point):
            return "it has choices that others make inactive"
        if trial.kind == COMPRESSION:
            if trial.parent is None or not 0 <= trial.parent < trial.number:
                return f"its parent, {trial.parent}, is not there"
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
                return f"trial {trial.repeats}, which it repeats, is not there"
            found = trials[trial.repeats].candidate
        elif trial.kind == STEP:
            if trial.repeats is None or not 0 <= trial.repeats < trial.number:
                return f"trial {trial.repeats}, of which it is a step, is not there"
            stages = [*trial.candidate.recipe.items()]
            if json.dumps([*found.recipe.items()][: len(stages)]) != json.dumps(stages):
                return f"recipe {dict(found.recipe)} does not begin with {dict(trial.candidate.recipe)}"
            found = replace(found, recipe=trial.candidate.recipe)
        if found != trial.candidate:
            return "its candidate is not that of its choices"
    except SlimsearchError as error:
        return str(error)
    if trial.state == COMPLETE:
        for metric in metrics:
            if not math.isfinite(trial.metrics.get(metric, math.nan)):
                return f"it is complete, and its {metric} is missing"
    return None
