"""``slimsearch dashboard``: optuna-dashboard for a run, finished or running, on the loopback address."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.cli.command_parser import CommandParser
from slimsearch.errors import SlimsearchError, describe_error

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from slimsearch.record.shared.artifact_store import DatabaseArtifacts

HELP = "open optuna-dashboard for a run, finished or running"
_EXAMPLES = ("runs/mnist_cnn-20260101-120000", "runs/mnist_cnn-20260101-120000 --port 8081")


def parser(program: str) -> CommandParser:
    found = CommandParser(HELP, program, _EXAMPLES)
    found.add_argument("run_dir", help="the run directory")
    found.add_argument("--port", least=1, most=65535, default=8080, help="port on the loopback address")
    found.add_argument("--storage", help="URL of the study, if it is in a database on another machine")
    return found


def run(options: dict[str, Any]) -> None:
    port = options["port"]
    opened, artifacts = _study(Path(options["run_dir"]).expanduser(), options["storage"])
    from optuna_dashboard import run_server

    try:
        with socket.socket() as free:  # fails before the server announces its address
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
        _in_a_thread(lambda: run_server(opened, host="127.0.0.1", port=port, artifact_store=artifacts))
    except OSError as error:
        raise SlimsearchError(f"cannot serve on port {port}: {error.strerror}; choose another with --port") from error


def _in_a_thread(serve: Callable[[], None]) -> None:
    """Serve in a daemon thread: in the main thread wsgiref answers a request that Ctrl-C meets, and forgets Ctrl-C."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            serve()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="dashboard", daemon=True)
    thread.start()
    thread.join()
    for error in errors:
        raise error


def _study(path: Path, given: str | None) -> tuple[BaseStorage, DatabaseArtifacts | None]:
    """The storage of a run and, of a database, its artifacts.

    Args:
        path: the run directory.
        given: ``--storage``.
    """
    from slimsearch.options.configuration import Configuration, check_run_directory
    from slimsearch.record.run_directory import refuse_unsafe_files
    from slimsearch.record.shared.artifact_store import DatabaseArtifacts
    from slimsearch.record.shared.storage import is_local, masked, normalised, open_database

    refuse_unsafe_files(path)
    journal, config = path / "study.journal", path / "config.yaml"
    url = given or (Configuration.read(config).storage if config.is_file() else None)
    if url is not None:
        if given is None and not is_local(url):
            raise SlimsearchError(f"the study of '{path}' is on another machine: add --storage {masked(url)}")
        database = open_database(normalised(url), create=False)
        return database, DatabaseArtifacts(database.engine)
    if not journal.is_file():
        check_run_directory(path)
        raise SlimsearchError(f"'{path}' is not a run directory: it has no study.journal")
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        opened = JournalStorage(JournalFileBackend(str(journal)))
        for name in optuna.get_all_study_names(opened):
            optuna.load_study(study_name=name, storage=opened).get_trials(deepcopy=False)
    except Exception as error:  # Optuna raises any type of exception for a damaged operation
        raise SlimsearchError(f"'{journal}' cannot be read: {describe_error(error)}") from error
    return opened, None
