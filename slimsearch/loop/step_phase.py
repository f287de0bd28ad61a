"""What each stage of a finalist's recipe gained and cost, where architecture and recipe were searched as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from slimsearch import compression
from slimsearch.evaluators import Artifact
from slimsearch.loop.planned_phase import PlannedPhase
from slimsearch.record.lineage import beginnings, scored
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import STEP, Trial


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
            for recipe in beginnings(trial):
                if scored(record.trials, trial, recipe) is None:
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
