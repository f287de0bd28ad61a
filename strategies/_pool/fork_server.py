"""Worker processes forked from one process (Python's fork server) that has imported PyTorch and NNI.

These imports take five seconds of a core: so they happen once for all workers, while the driver imports the same. The
fork server stays until the driver ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

_UNTIL_GONE = 1.0  # seconds
_imports = ["slimsearch.strategies._pool.bound_to_driver", "slimsearch.strategies._pool.worker"]


def begin(*imports: str) -> None:
    """Start the fork server, which imports these modules too, unless it runs already; returns at once."""
    _imports.extend(name for name in imports if name not in _imports)
    multiprocessing.get_context("forkserver").set_forkserver_preload(_imports)
    with _as_workers_are_started():
        forkserver.ensure_running()


def start(target: Callable[..., None], args: tuple[Any, ...]) -> BaseProcess:
    """Start a process that calls `target`, a function of a module, with `args` and the driver's environment.

    `target` is called with SIGINT blocked: Ctrl-C in a terminal is sent to all processes, also to one that is still
    importing.
    """
    try:
        return _started(target, args)
    except (EOFError, ConnectionError):  # the server was killed, and is not yet seen to be gone
        time.sleep(_UNTIL_GONE)
        return _started(target, args)


def _started(target: Callable[..., None], args: tuple[Any, ...]) -> BaseProcess:
    begin()
    context = multiprocessing.get_context("forkserver")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = context.Process(target=target, args=(*args, environment))
    with _as_workers_are_started(), _no_main_script():
        process.start()
    return process


@contextlib.contextmanager
def _as_workers_are_started() -> Iterator[None]:
    """Block SIGINT, and set the environment in which a worker imports; both are restored for the driver."""
    # OpenMP reads its number of threads when torch is imported. Modules come from where the driver has them, and from
    # the working directory only where it has them from there.
    imports = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # Python's resource tracker removes the locks of a worker that was killed. From Python 3.14 it also warns of them.
    filters = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker:UserWarning"]))
    settings = {
        "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": imports, "PYTHONSAFEPATH": "1",
        "PYTHONWARNINGS": filters,
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _no_main_script() -> Iterator[None]:
    """Processes started in this context do not import the main script.

    A notebook, or a script without a main guard, must not run a second time; its classes travel by value.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
