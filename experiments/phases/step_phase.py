"""What each stage of a finalist's recipe gained and cost, where architecture and recipe were searched as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import compression
from evaluators import Artifact
from experiments.phases.planned_phase import PlannedPhase
from experiments.study.record import Record
from experiments.study.run_directory import RunDirectory
from experiments.study.trial import COMPLETE, COMPRESSION, SEARCH, STEP, Trial


class StepPhase(PlannedPhase):
    """Scores the files of the networks that a finalist went through: as it was trained, and after each stage.

    The networks themselves were kept, nothing is trained again; a step that the search has scored itself is left out.
    Steps are trials of their own kind, on no front.

    Args:
        finalists: whose steps are scored.
        record, directory, seed, teacher, retries: see `PlannedPhase`.
    """

    kind = STEP

    def __init__(
        self, finalists: Sequence[Trial], *, record: Record, directory: RunDirectory, seed: int,
        teacher: Artifact | None, retries: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(record, directory, seed, teacher, retries)
        self._wanted: dict[str, tuple[Trial, compression.Recipe]] = {}
        for trial in finalists:
            for recipe in _beginnings(trial):
                if _scored(record.trials, trial, recipe) is None:
                    key = replace(trial.candidate, recipe=recipe).key
                    self._wanted.setdefault(key, (trial, recipe))

    @property
    def length(self) -> int:
        """Trials that the phase consists of."""
        return len(self._wanted)

    def _begin(self) -> Trial | None:
        while self._wanted:
            finalist, recipe = self._wanted.pop(next(iter(self._wanted)))
            candidate = replace(finalist.candidate, recipe=recipe)
            if not any(t.kind == STEP and t.candidate == candidate for t in self._record.standing):
                return self._record.start(
                    candidate, kind=STEP, fidelity=finalist.fidelity, seed=self._seed, repeats=finalist.number,
                    common_seed=True, point=finalist.point,
                )  # fmt: skip
        return None

    def waits(self) -> bool:
        """Nothing here waits for another step."""
        return False


def path_of(trial: Trial, trials: Sequence[Trial]) -> list[tuple[compression.Recipe, Trial, float]]:
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
        found = (_scored(trials, trial, recipe) for recipe in _beginnings(trial))
        line = [*(t for t in found if t is not None), trial]
        # Each trial went through all steps up to its own, or found them made.
        whole = [t.metrics.get("training_seconds", 0.0) + t.metrics.get("seconds_saved", 0.0) for t in line]
        taken = [max(0.0, now - before) for before, now in zip([0.0, *whole], whole, strict=False)]
    done: compression.Recipe = {}
    path: list[tuple[compression.Recipe, Trial, float]] = []
    for one, seconds in zip(line, taken, strict=True):
        path.append((compression.remainder(one.candidate.recipe, done), one, seconds))
        done = one.candidate.recipe
    return path


def _beginnings(trial: Trial) -> list[compression.Recipe]:
    """The recipes of the steps before a trial of the search itself: the empty one, and one stage more each time."""
    if trial.kind != SEARCH or not trial.candidate.recipe:
        return []
    done: dict[str, Mapping[str, object]] = {}
    beginnings: list[compression.Recipe] = []
    for group in compression.groups(trial.candidate.recipe):
        beginnings.append(done)
        done = {**done, **group}
    return beginnings


def _scored(trials: Sequence[Trial], trial: Trial, recipe: compression.Recipe) -> Trial | None:
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
