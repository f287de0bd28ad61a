"""What a finished trial left on disk, as the start of another one."""

from __future__ import annotations

from slimsearch.evaluators import Artifact
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import SEARCH, Trial


def artifact(trial: Trial, record: Record, directory: RunDirectory) -> Artifact:
    """The network of a trial; what another driver made is fetched."""
    record.fetch(trial)
    origin = trial
    while origin.parent is not None:
        origin = record.trials[origin.parent]
    folder = directory.trial_directory(trial.number)
    return Artifact(folder, trial.candidate.architecture, trial.candidate.recipe, origin.seed)


def teacher(ranking: Ranking, record: Record, directory: RunDirectory) -> Artifact | None:
    """The most accurate network of the search, which a distillation may ask for."""
    searched = ranking.feasible([t for t in record.trials if t.kind == SEARCH and "val_accuracy" in t.metrics])
    best = max(searched, key=lambda t: (t.metrics["val_accuracy"], -t.number), default=None)
    return None if best is None else artifact(best, record, directory)
