"""The code of a worker process: it evaluates one task at a time and reports to the driver."""

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

_REASONS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# Bytes; a file that did not fit leaves some room once it is removed.
_SCARCE = 64 * 2**20
_PROBE = 64 * 1024


def serve(line: Connection, evaluator: bytes, environment: Mapping[str, str]) -> None:
    """Evaluate the tasks that arrive on `line`, in the driver's environment, as long as the driver lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which then stops its workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see where this process is started
    threading.Thread(target=_end_with_driver, args=(os.getppid(),), daemon=True).start()
    _reset_state(environment)
    use_one_thread()
    loaded = _loaded(evaluator)
    # A task may close file descriptors or fork processes: that ends this loop without a traceback.
    with contextlib.suppress(EOFError, OSError):
        while True:
            task = line.recv()
            line.send((BEGUN, None))
            result = loaded if isinstance(loaded, Failure) else _evaluated_here(loaded, task, line)
            try:
                line.send((DONE, result))
            except OSError:
                raise
            except Exception as error:  # it cannot be pickled
                line.send((DONE, Failure(describe_error(error))))


def evaluated(evaluator: Evaluator, task: Task, report: ReportEpoch) -> Outcome | Failure:
    """Evaluate `task`; an exception is returned as one line, its traceback stands in the task's log."""
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
    except Exception as error:  # user code may not load here; each task then reports it
        return Failure(f"a worker cannot load the evaluator: {describe_error(error)}")


def _evaluated_here(evaluator: Evaluator, task: Task, line: Connection) -> Outcome | Failure:
    """The result of `evaluated`; a process that the task has forked ends with the task."""
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
    """A function that ends any other process that calls it: a forked copy of a worker must not act as the worker."""
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
    """Why nothing can be written to `folder`, or None.

    It is tried, since libraries raise exceptions of their own for a full disk.

    Args:
        folder: where the files of a trial go.
        error: what the trial raised.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as found:
        return os.strerror(found.errno) if found.errno in _REASONS else None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC and shutil.disk_usage(folder).free < _SCARCE:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return None


def _reset_state(environment: Mapping[str, str]) -> None:
    """Undo what a fork inherits: the environment, the start method, the temporary folder and the random state."""
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # the user's own choice, or Python's
    tempfile.tempdir = None
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def _end_with_driver(parent: int) -> None:
    """End within half a second of the driver or of the process that this one was forked from."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    while driver.is_alive() and os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
