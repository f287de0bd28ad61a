"""Stored runs, which can be read while they are running, and the list of runs in a folder."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import Configuration
from slimsearch.record import environment
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory, in_use, read_study, refuse_unsafe_files
from slimsearch.record.shared.storage import database_errors, is_local, masked, normalised
from slimsearch.record.shared.study import SharedStudy
from slimsearch.record.trial import COMPLETE, FAILED, SEARCH, Trial
from slimsearch.record.trial import STOPPED as STOPPED_EARLY
from slimsearch.report.tables import metrics_text, plain, report_rows

if TYPE_CHECKING:
    from rich.table import Table

RUNNING, FINISHED, STOPPED, ELSEWHERE = "running", "finished", "stopped", "in a database"


@dataclass(frozen=True)
class StoredRun:
    """A run as read from its directory.

    Attributes:
        path: of the directory.
        state: "running", "finished", "stopped" (continue with ``--resume``), or "in a database" (not read).
        environment: at the start of the run.
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
        """Finalists with their final metrics, the front first."""
        return [t for t in report_rows(self.trials, self.ranking) if t.state == COMPLETE]

    @property
    def searched(self) -> int:
        """Number of search trials that are complete, failed or stopped early."""
        return sum(t.kind == SEARCH and t.state in (COMPLETE, FAILED, STOPPED_EARLY) for t in self.trials)


def stored_run(path: Path, *, databases: bool = False, storage: str | None = None) -> StoredRun:
    """Read the run in the directory `path`.

    Args:
        path: of the directory.
        databases: also read a study in a database.
        storage: URL of the database, which is needed if it is on another machine: a run directory is untrusted.

    Raises:
        SlimsearchError: there is no run, it is damaged, or its database cannot be read.
    """
    if not (path / "config.yaml").is_file():
        raise SlimsearchError(f"'{path}' is not a run directory: it has no config.yaml")
    refuse_unsafe_files(path)
    configuration = Configuration.read(path / "config.yaml")
    environment_at_start = environment.read(path)
    ranking = Ranking.of(configuration)
    trials: list[Trial] = []
    if configuration.storage is None:
        study = read_study(path, ranking.objectives)
        trials += [] if study is None else Record(study, None, ranking.objectives).trials
    elif databases:
        trials += _trials_in_database(path, configuration, ranking, storage)
    else:
        return StoredRun(path, configuration, environment_at_start, ranking, (), ELSEWHERE)
    finished = any(t.final for t in trials) and not any(t.unfinished for t in trials)
    state = RUNNING if in_use(path) else FINISHED if finished else STOPPED
    return StoredRun(path, configuration, environment_at_start, ranking, trials, state)


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """One entry for each run directly in `folder`, the latest last; for a damaged run, the error.

    Raises:
        SlimsearchError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise SlimsearchError(f"there is no folder '{folder}'")
    found = [_entry(path) for path in folder.iterdir() if (path / "config.yaml").is_file()]
    if not found:
        raise SlimsearchError(f"there are no runs in '{folder}'")
    return sorted(found, key=lambda entry: (entry.get("started") or 0.0, entry["run"]))


def runs_table(entries: Sequence[dict[str, Any]]) -> Table:
    """The entries of `list_runs` as a table."""
    from rich.table import Table

    table = Table()
    for heading in ("run", "state", "space", "data set", "strategy", "trials", "best", "front", "started"):
        right = heading in ("trials", "best", "front")
        table.add_column(
            heading,
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=heading in ("run", "state", "started"),
        )
    for entry in entries:
        if "error" in entry:
            continue
        started = entry["started"]
        table.add_row(
            plain(Path(entry["run"]).name),
            entry["state"],
            plain(entry["space"]),
            plain(entry["dataset"]),
            plain(entry["by"]),
            f"{entry['searched']} / {entry['trials']}",
            metrics_text(entry["best"]),
            str(entry["on_front"] or ""),
            f"{datetime.datetime.fromtimestamp(started):%Y-%m-%d %H:%M}" if started else "",
        )
    return table


def _entry(path: Path) -> dict[str, Any]:
    try:
        return {"run": str(path), **_described(stored_run(path))}
    except SlimsearchError as error:
        return {"run": str(path), "error": str(error)}


def _described(run: StoredRun) -> dict[str, Any]:
    options = run.configuration
    feasible = run.ranking.feasible([t.with_final_metrics() for t in run.trials])
    leading = run.ranking.leading
    values = [t.metrics[leading.metric] for t in feasible if leading.metric in t.metrics]
    return {
        "state": run.state,
        "space": options.subject if options.model else Path(options.space).name or Path(options.evaluator).name,
        "dataset": run.environment["dataset"]["name"],
        "by": f"{options.strategy}, {options.sampler}",
        "searched": run.searched,
        "trials": options.trials,
        "best": {leading.metric: (max if leading.direction == "maximize" else min)(values)} if values else {},
        "on_front": len(run.ranking.run_front(run.trials)),
        "started": min((t.started for t in run.trials), default=None),
    }


def read_record(directory: RunDirectory, configuration: Configuration, ranking: Ranking) -> Record:
    """Open the record of a run for reading, in the run directory or in a database.

    Raises:
        SlimsearchError: the record is damaged or cannot be reached.
    """
    if configuration.storage is None:
        return Record(directory.open_study(ranking.objectives), None, ranking.objectives)
    shared = _shared_study(directory.path, configuration, configuration.storage)
    with database_errors(shared.url, ""):
        return Record(shared.study, None, ranking.objectives)


def _shared_study(path: Path, configuration: Configuration, url: str) -> SharedStudy:
    shared = SharedStudy(normalised(url), configuration.study or path.name, configuration.heartbeat)
    shared.reopen()
    return shared


def _trials_in_database(
    path: Path, configuration: Configuration, ranking: Ranking, storage: str | None
) -> Sequence[Trial]:
    url = storage or str(configuration.storage)
    if storage is None and not is_local(url):
        raise SlimsearchError(f"the study of '{path}' is on another machine: add --storage {masked(url)}")
    shared = _shared_study(path, configuration, url)
    try:
        with database_errors(shared.url, ""):
            return Record(shared.study, None, ranking.objectives).trials
    finally:
        shared.database.engine.dispose()
