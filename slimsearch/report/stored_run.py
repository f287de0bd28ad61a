"""A run as it lies on disk, looked at without changing anything: it may be going on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import Configuration
from slimsearch.record import environment
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import in_use, look_at_study, refuse_ways_out
from slimsearch.record.trial import COMPLETE, FAILED, SEARCH, Trial
from slimsearch.record.trial import STOPPED as STOPPED_EARLY
from slimsearch.report.tables import rows

RUNNING, FINISHED, STOPPED, ELSEWHERE = "running", "finished", "stopped", "in a database"


@dataclass(frozen=True)
class StoredRun:
    """What was read of a run.

    Attributes:
        path: of its directory.
        state: "running", "finished", "stopped" (go on with ``--resume``), or "in a database", which is not looked
            into.
        environment: what it was begun in.
        trials: by number.
    """

    path: Path
    configuration: Configuration
    environment: dict[str, Any]
    ranking: Ranking
    trials: Sequence[Trial]
    state: str

    @property
    def finalists(self) -> list[Trial]:
        """With what was measured at the end, the front first."""
        return [t for t in rows(self.trials, self.ranking) if t.state == COMPLETE]

    @property
    def searched(self) -> int:
        """Candidates of the search that were evaluated to their end, or ended early."""
        return sum(t.kind == SEARCH and t.state in (COMPLETE, FAILED, STOPPED_EARLY) for t in self.trials)


def stored_run(path: Path) -> StoredRun:
    """The run in the directory `path`.

    Raises:
        SlimsearchError: it is none, or damaged.
    """
    if not (path / "config.yaml").is_file():
        raise SlimsearchError(f"'{path}' is no run directory: it has no config.yaml")
    refuse_ways_out(path)
    configuration = Configuration.read(path / "config.yaml")
    begun_in = environment.read(path)
    ranking = Ranking.of(configuration)
    if configuration.storage is not None:
        return StoredRun(path, configuration, begun_in, ranking, (), ELSEWHERE)
    study = look_at_study(path, ranking.objectives)
    trials = [] if study is None else list(Record(study, None, ranking.objectives).trials)
    finished = any(t.final for t in trials) and not any(t.unfinished for t in trials)
    state = RUNNING if in_use(path) else FINISHED if finished else STOPPED
    return StoredRun(path, configuration, begun_in, ranking, trials, state)
