"""optuna-dashboard on a run, finished or going on, on the loopback address."""

from __future__ import annotations

from pathlib import Path

from slimsearch_errors import SlimsearchError


def serve(path: Path, port: int = 8080) -> None:
    """Serve the dashboard of the run in `path` until interrupted.

    Raises:
        SlimsearchError: there is no study, or the port is taken.
    """
    journal = path.expanduser() / "study.journal"
    if not journal.is_file():
        raise SlimsearchError(f"'{path}' is no run directory: it has no study.journal")
    if not 0 < port < 65536:
        raise SlimsearchError(f"--port {port} is not between 1 and 65535")
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna_dashboard import run_server

    storage = JournalStorage(JournalFileBackend(str(journal)))
    try:
        run_server(storage, host="127.0.0.1", port=port)
    except OSError as error:
        raise SlimsearchError(f"cannot serve on port {port}: {error.strerror}; choose another with --port") from error
