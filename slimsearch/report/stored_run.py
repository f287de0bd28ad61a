"""Stored runs, which can be read while they are running, and the list of runs in a folder."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import Configuration, check_run_directory
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
        state: "running", "finished", "stopped" (continue with ``--resume``), or "in a database" on another machine, of
            which no trial was read.
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


def stored_run(path: Path, *, storage: str | None = None) -> StoredRun:
    """Read the run in the directory `path`.

    Args:
        path: of the directory.
        storage: URL of the database with its study, if it is in one. Without it, no database on another machine is
            read, since a run directory is untrusted.

    Raises:
        SlimsearchError: there is no run, it is damaged, or its database cannot be read.
    """
    check_run_directory(path)
    refuse_unsafe_files(path)
    configuration = Configuration.read(path / "config.yaml")
    environment_at_start = environment.read(path)
    ranking = Ranking.of(configuration)
    trials: list[Trial] = []
    if configuration.storage is None:
        study = read_study(path, ranking.objectives)
        trials += [] if study is None else Record(study, None, ranking.objectives).trials
    elif storage is not None or is_local(configuration.storage):
        trials += _trials_in_database(path, configuration, ranking, storage or configuration.storage)
    else:
        return StoredRun(path, configuration, environment_at_start, ranking, (), ELSEWHERE)
    finished = any(t.final for t in trials) and not any(t.unfinished for t in trials)
    state = RUNNING if in_use(path) else FINISHED if finished else STOPPED
    return StoredRun(path, configuration, environment_at_start, ranking, trials, state)


def refuse_unread(runs: Sequence[StoredRun]) -> None:
    """Refuse runs whose studies are in a database on another machine, which was not read.

    Raises:
        SlimsearchError: there is one.
    """
    for run in runs:
        if run.state == ELSEWHERE:
            raise _elsewhere(run.path, run.configuration)


def list_runs(folder: Path, storage: str | None = None) -> list[dict[str, Any]]:
    """One entry for each run directly in `folder`, the latest last; for a run that cannot be read, the error.

    Args:
        folder: of run directories.
        storage: URL of the database of runs whose database is on another machine.

    Raises:
        SlimsearchError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise SlimsearchError(f"there is no folder '{folder}'; name the folder of your runs")
    found = [_entry(path, storage) for path in folder.iterdir() if (path / "config.yaml").is_file()]
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


def _entry(path: Path, storage: str | None) -> dict[str, Any]:
    try:
        run = stored_run(path)
        if run.state == ELSEWHERE and storage is not None:
            run = stored_run(path, storage=storage)
        return {"run": str(path), **_described(run)}
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


def read_record(
    directory: RunDirectory, configuration: Configuration, ranking: Ranking, storage: str | None = None
) -> Record:
    """Open the record of a run for reading, in the run directory or in a database.

    Args:
        directory: of the run.
        configuration: of the run.
        ranking: of its trials.
        storage: see `stored_run`.

    Raises:
        SlimsearchError: the record is damaged or cannot be reached.
    """
    if configuration.storage is None:
        return Record(directory.open_study(ranking.objectives), None, ranking.objectives)
    if storage is None and not is_local(configuration.storage):
        raise _elsewhere(directory.path, configuration)
    shared = _shared_study(directory.path, configuration, storage or configuration.storage)
    with database_errors(shared.url, ""):
        return Record(shared.study, None, ranking.objectives)


def _elsewhere(path: Path, configuration: Configuration) -> SlimsearchError:
    url = masked(str(configuration.storage))
    return SlimsearchError(f"the study of '{path}' is on another machine: add --storage {url}")


def _shared_study(path: Path, configuration: Configuration, url: str) -> SharedStudy:
    name = configuration.study or path.resolve().name
    shared = SharedStudy(normalised(url), name, configuration.heartbeat, create=False)
    shared.reopen()
    return shared


def _trials_in_database(path: Path, configuration: Configuration, ranking: Ranking, url: str) -> Sequence[Trial]:
    shared = _shared_study(path, configuration, url)
    try:
        with database_errors(shared.url, ""):
            return Record(shared.study, None, ranking.objectives).trials
    finally:
        shared.database.engine.dispose()
