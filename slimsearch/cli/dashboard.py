"""optuna-dashboard on a run, finished or going on, wherever its study is, on the loopback address."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.options.configuration import Configuration
from slimsearch.record.run_directory import refuse_ways_out
from slimsearch.record.shared.artifact_store import DatabaseArtifacts
from slimsearch.record.shared.storage import is_local, masked, normalised, open_database

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def serve(path: Path, port: int = 8080, storage: str | None = None) -> None:
    """Serve the dashboard of the run in `path` until interrupted.

    Args:
        path: of the run directory.
        port: on the loopback address.
        storage: again, where the study is in a database on another machine.

    Raises:
        SlimsearchError: there is no study, it cannot be reached, or the port is taken.
    """
    if not 0 < port < 65536:
        raise SlimsearchError(f"--port {port} is not between 1 and 65535")
    opened, artifacts = _study(path.expanduser(), storage)
    from optuna_dashboard import run_server

    try:
        with socket.socket() as free:  # before the server says where it is
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
        run_server(opened, host="127.0.0.1", port=port, artifact_store=artifacts)
    except OSError as error:
        raise SlimsearchError(f"cannot serve on port {port}: {error.strerror}; choose another with --port") from error


def _study(path: Path, given: str | None) -> tuple[BaseStorage, DatabaseArtifacts | None]:
    refuse_ways_out(path)
    journal, config = path / "study.journal", path / "config.yaml"
    url = given or (Configuration.read(config).storage if config.is_file() else None)
    if url is not None:
        if given is None and not is_local(url):
            raise SlimsearchError(f"'{path}' is about another machine, --storage {masked(url)}: name it again")
        database = open_database(normalised(url))
        return database, DatabaseArtifacts(database.engine)
    if not journal.is_file():
        raise SlimsearchError(f"'{path}' is no run directory: it has no study.journal")
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        opened = JournalStorage(JournalFileBackend(str(journal)))
        for study in opened.get_all_studies():
            opened.get_all_trials(opened.get_study_id_from_name(study.study_name), deepcopy=False)
    except Exception as error:  # Optuna raises whatever a damaged operation leads to
        raise SlimsearchError(f"'{journal}' cannot be read: {describe_error(error)}") from error
    return opened, None
