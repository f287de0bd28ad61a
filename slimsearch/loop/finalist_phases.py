"""Phases for finalists: repetitions with other seeds, and scores of their intermediate networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from slimsearch import compression
from slimsearch.evaluators import Artifact
from slimsearch.loop.phases import PlannedPhase
from slimsearch.record.lineage import compression_lineage, partial_recipes, scored_step
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import COMPLETE, COMPRESSION, REPEAT, STEP, Trial


class RepeatPhase(PlannedPhase):
    """Repeats the training and compression of each finalist with other seeds.

    A compressed finalist starts from the repetition of its parent, which is therefore repeated too. Repetitions are
    not ranked; the metrics of the finalist do not change.

    Args:
        finalists: trials to repeat.
        repeats: trainings of each, including the first.
        record, directory, seed, teacher, retries: see `PlannedPhase`; each trial has its own seed.
    """

    kind = REPEAT

    def __init__(
        self, finalists: Sequence[Trial], repeats: int, *, record: Record, directory: RunDirectory, seed: int,
        teacher: Artifact | None, retries: int,
    ) -> None:  # fmt: skip
        super().__init__(record, directory, seed, teacher, retries)
        originals: dict[int, Trial] = {}
        for trial in finalists:
            for ancestor in compression_lineage(trial, record.trials):
                originals[ancestor.number] = ancestor
        self._wanted = [(original, turn) for turn in range(1, repeats) for original in originals.values()]

    @property
    def length(self) -> int:
        """Number of trials of the phase."""
        return len(self._wanted)

    def _begin(self) -> Trial | None:
        # A compressed finalist waits for the repetition of its parent.
        for original, turn in self._wanted:
            if _find(self._record, original, turn) is not None:
                continue
            start = None
            if original.kind == COMPRESSION:
                assert original.parent is not None
                start = _find(self._record, self._record.trials[original.parent], turn)
                if start is None or start.state != COMPLETE:
                    continue
            return self._record.start(
                original.candidate, kind=REPEAT, fidelity=original.fidelity, seed=self._seed,
                parent=None if start is None else start.number, repeats=original.number, repetition=turn,
            )  # fmt: skip
        return None


class IntermediateScores(PlannedPhase):
    """Scores the intermediate networks of finalists: as trained, and after each group of stages except the last.

    The networks are on disk, so nothing is trained. Networks that the search has scored are left out. These trials have
    the kind "step" and are not ranked.

    Args:
        finalists: trials whose intermediate networks are scored.
        record, directory, seed, teacher, retries: see `PlannedPhase`.
    """

    kind = STEP

    def __init__(
        self, finalists: Sequence[Trial], *, record: Record, directory: RunDirectory, seed: int,
        teacher: Artifact | None, retries: int,
    ) -> None:  # fmt: skip
        super().__init__(record, directory, seed, teacher, retries)
        self._wanted: dict[str, tuple[Trial, compression.PlainRecipe]] = {}
        for trial in finalists:
            for recipe in partial_recipes(trial):
                if scored_step(record.trials, trial, recipe) is None:
                    key = replace(trial.candidate, recipe=recipe).key
                    self._wanted.setdefault(key, (trial, recipe))

    @property
    def length(self) -> int:
        """Number of trials of the phase."""
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
        """False: no trial of this phase depends on another one."""
        return False


def _find(record: Record, original: Trial, turn: int) -> Trial | None:
    return next(
        (t for t in record.standing if t.kind == REPEAT and t.repeats == original.number and t.repetition == turn), None
    )
