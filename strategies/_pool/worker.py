"""The main function of a worker process, which evaluates one task at a time and reports to the driver."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import cloudpickle

from slimsearch.errors import describe_error
from slimsearch.evaluators import Evaluator, Outcome, ReportEpoch, Task, use_one_thread
from slimsearch.strategies._pool.trial_log import output_to
from slimsearch.strategies._strategy import Failure

BEGUN, REPORT, DONE = "begun", "report", "done"
"""Messages of a worker: a task begins; it has finished an epoch and waits for an answer; it has ended."""

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# A disk with less free space counts as full: removing the file that did not fit has freed some.
_SCARCE = 64 * 2**20
_PROBE_BYTES = 64 * 1024


def serve(line: Connection, evaluator: bytes, environment: Mapping[str, str]) -> None:
    """Evaluate the tasks that arrive on `line`, in the driver's environment, until the driver ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C and stops its workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked by `fork_server.start`
    threading.Thread(target=_end_with_driver, args=(os.getppid(),), daemon=True).start()
    _reset_state(environment)
    use_one_thread()
    loaded = _loaded(evaluator)
    # End without a traceback if a task closes file descriptors or forks processes.
    with contextlib.suppress(EOFError, OSError):
        while True:
            task = line.recv()
            line.send((BEGUN, None))
            result = loaded if isinstance(loaded, Failure) else _evaluated_in_worker(loaded, task, line)
            try:
                line.send((DONE, result))
            except OSError:
                raise
            except Exception as error:  # it cannot be pickled
                line.send((DONE, Failure(describe_error(error))))


def evaluated(evaluator: Evaluator, task: Task, report: ReportEpoch) -> Outcome | Failure:
    """Evaluate `task`; returns an exception as one line, with its traceback in the task's log."""
    try:
        with output_to(task.directory / "log.txt"):
            try:
                return evaluator.evaluate(task, report=report)
            except Exception as error:  # a candidate may raise anything
                with contextlib.suppress(OSError):  # the log's disk may be full
                    traceback.print_exc()
                return _failure(error, task)
            except SystemExit as error:
                return Failure(f"SystemExit: {error.code}, in the middle of the trial")
    except OSError as error:  # there is no log
        return _failure(error, task)


def _loaded(evaluator: bytes) -> Evaluator | Failure:
    try:
        return cloudpickle.loads(evaluator)  # type: ignore[no-any-return]
    except Exception as error:  # user code may fail to load; each task then reports it
        return Failure(f"a worker cannot load the evaluator: {describe_error(error)}")


def _evaluated_in_worker(evaluator: Evaluator, task: Task, line: Connection) -> Outcome | Failure:
    """The result of `evaluated`; processes that the task has forked end here."""
    only = _only_in_this_process()

    def report(epoch: int, metrics: Mapping[str, float]) -> bool:
        only()
        line.send((REPORT, (epoch, dict(metrics))))
        return bool(line.recv())

    try:
        return evaluated(evaluator, task, report)
    except BaseException as error:  # raised by the task
        return Failure(describe_error(error))
    finally:
        only()


def _only_in_this_process() -> Callable[[], None]:
    """A function that ends any other process that calls it, so that a forked copy does not act as the worker."""
    own = os.getpid()

    def check() -> None:
        if os.getpid() != own:
            os._exit(1)

    return check


def _failure(error: Exception, task: Task) -> Failure:
    reason = _unwritable(task.directory, error)
    if reason is not None:
        return Failure(f"cannot write to '{task.directory}': {reason}", unwritable=True)
    return Failure(describe_error(error))


def _unwritable(folder: Path, error: BaseException) -> str | None:
    """Why `folder` is not writable, or None.

    Tests it by writing, since libraries raise their own exceptions for a full disk.

    Args:
        folder: folder of the trial's files.
        error: the exception of the trial.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as found:
        return os.strerror(found.errno) if found.errno in _UNWRITABLE else None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC and shutil.disk_usage(folder).free < _SCARCE:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return None


def _reset_state(environment: Mapping[str, str]) -> None:
    """Reset the state that a fork inherits: environment, start method, temporary folder and random generators."""
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # the user's or Python's default
    tempfile.tempdir = None
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def _end_with_driver(parent: int) -> None:
    """End this process within half a second of the driver or of its parent process."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    while driver.is_alive() and os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
