"""Worker processes forked from one process (Python's fork server) that has imported PyTorch and NNI.

These imports take five seconds of a core, so they happen once for all workers, while the driver imports the same
modules. The fork server runs until the driver ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.temporary import process_folder, socket_folder

SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""Signals that end a run; a terminal or a job scheduler sends them to all of its processes."""

_SECONDS_UNTIL_GONE = 1.0
_imports = ["slimsearch.strategies._pool.bound_to_driver", "slimsearch.strategies._pool.worker"]


def begin(*imports: str) -> None:
    """Start the fork server unless it is running; it also imports the modules `imports`. Returns at once.

    Raises:
        SlimsearchError: the temporary folder cannot be used.
    """
    _imports.extend(name for name in imports if name not in _imports)
    multiprocessing.get_context("forkserver").set_forkserver_preload(_imports)
    resource_tracker.ensure_running()  # which unblocks SIGINT
    folder = socket_folder()
    try:
        with _worker_environment(), _temporary_files_in(folder):
            forkserver.ensure_running()
    except OSError as error:
        raise SlimsearchError(f"no worker process can be started with sockets in '{folder}': {error}") from error


def start(target: Callable[..., None], args: tuple[Any, ...]) -> BaseProcess:
    """Start a process that calls `target`, a module-level function, with `args` and the driver's environment.

    `SIGNALS` are blocked when `target` is called: they may arrive during the imports of the process.

    Raises:
        SlimsearchError: the temporary folder cannot be used.
    """
    try:
        return _started(target, args)
    except (EOFError, ConnectionError):  # the server was killed, and its end is not detected yet
        time.sleep(_SECONDS_UNTIL_GONE)
        return _started(target, args)


def _started(target: Callable[..., None], args: tuple[Any, ...]) -> BaseProcess:
    begin()
    context = multiprocessing.get_context("forkserver")
    driver_environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with contextlib.suppress(OSError):  # a full disk is found by those that write to it
        driver_environment["TMPDIR"] = str(process_folder())
    process = context.Process(target=target, args=(*args, driver_environment))
    with _worker_environment(), _no_main_script():
        process.start()
    return process


@contextlib.contextmanager
def _worker_environment() -> Iterator[None]:
    """Block `SIGNALS` and set the environment for a worker's imports; both are restored for the driver."""
    # OpenMP reads its number of threads when torch is imported. A worker has the driver's search path, which need not
    # include the working directory.
    imports = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # Python's resource tracker removes the locks of killed workers. From Python 3.14 it also warns of them.
    filters = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker:UserWarning"]))
    settings = {
        "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": imports, "PYTHONSAFEPATH": "1",
        "PYTHONWARNINGS": filters, "SLIMSEARCH_DRIVER": str(os.getpid()),
    }  # fmt: skip
    with environment(settings):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Context in which Python's temporary files are created in `folder`."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables of this process, and of those that it starts, in this context."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _no_main_script() -> Iterator[None]:
    """Context whose new processes do not import the main script.

    A notebook or a script without a main guard must not run again; its classes are pickled by value.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
