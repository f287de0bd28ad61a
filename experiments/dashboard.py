"""optuna-dashboard on a run, finished or going on, wherever its study is, on the loopback address."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.artifact_store import DatabaseArtifacts
from experiments.configuration import Configuration
from experiments.storage import normalised, open_database
from slimsearch_errors import SlimsearchError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def serve(path: Path, port: int = 8080) -> None:
    """Serve the dashboard of the run in `path` until interrupted.

    Raises:
        SlimsearchError: there is no study, it cannot be reached, or the port is taken.
    """
    if not 0 < port < 65536:
        raise SlimsearchError(f"--port {port} is not between 1 and 65535")
    storage, artifacts = _study(path.expanduser())
    from optuna_dashboard import run_server

    try:
        run_server(storage, host="127.0.0.1", port=port, artifact_store=artifacts)
    except OSError as error:
        raise SlimsearchError(f"cannot serve on port {port}: {error.strerror}; choose another with --port") from error


def _study(path: Path) -> tuple[BaseStorage, DatabaseArtifacts | None]:
    journal, config = path / "study.journal", path / "config.yaml"
    url = Configuration.read(config).storage if config.is_file() else None
    if url is not None:
        database = open_database(normalised(url))
        return database, DatabaseArtifacts(database.engine)
    if not journal.is_file():
        raise SlimsearchError(f"'{path}' is no run directory: it has no study.journal")
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(journal))), None
