"""What runs in a worker process: one evaluator, one task at a time, a line back to the driver."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

from slimsearch.errors import describe_error
from slimsearch.evaluators import Evaluator, Outcome, ReportEpoch, Task, use_one_thread
from slimsearch.strategies._pool.trial_log import bounded
from slimsearch.strategies._pool.unwritable import unwritable
from slimsearch.strategies._strategy import Failure

BEGUN, REPORT, DONE = "begun", "report", "done"
"""What a worker sends: that a task's own code comes now; an epoch and its metrics, to be answered; the result."""


def serve(line: Connection, evaluator: bytes, environment: Mapping[str, str]) -> None:
    """Evaluate what comes along `line`, in the driver's environment, as long as the driver lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which then stops its workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see where this process is started
    threading.Thread(target=_end_with_driver, args=(os.getppid(),), daemon=True).start()
    _as_if_started_afresh(environment)
    use_one_thread()
    loaded = _loaded(evaluator)
    # What a task does to file descriptors, and in processes that it forks, is not what ends this loop in a traceback.
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
    """Evaluate `task`; what it raises comes back as a line, with the traceback in the task's log."""
    try:
        with _output_to(task):
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
    except Exception as error:  # what belongs to the user may not load here; each task then says so
        return Failure(f"a worker cannot load the evaluator: {describe_error(error)}")


def _evaluated_here(evaluator: Evaluator, task: Task, line: Connection) -> Outcome | Failure:
    """What `evaluated` gives; a process that the task has forked gets no further than to the end of the task."""
    only = _only_in_this_process()

    def report(epoch: int, metrics: Mapping[str, float]) -> bool:
        only()
        line.send((REPORT, (epoch, dict(metrics))))
        return bool(line.recv())

    try:
        return evaluated(evaluator, task, report)
    except BaseException as error:  # which no program but the task's own can have meant
        return Failure(describe_error(error))
    finally:
        only()


def _only_in_this_process() -> Callable[[], None]:
    """Ends any other process that calls it: a copy of a worker would report, and take tasks, in its name."""
    own = os.getpid()

    def check() -> None:
        if os.getpid() != own:
            os._exit(1)

    return check


def _failure(error: Exception, task: Task) -> Failure:
    reason = unwritable(task.directory, error)
    if reason is not None:
        return Failure(f"cannot write to '{task.directory}': {reason}", unwritable=True)
    return Failure(describe_error(error))


@contextlib.contextmanager
def _output_to(task: Task) -> Iterator[None]:
    """Whatever the task prints, from Python or below it, goes to its log and not into the driver's display."""
    _flush()
    saved = os.dup(1), os.dup(2)
    try:
        with (task.directory / "log.txt").open("ab") as log, bounded(task.directory / "log.txt"):
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            try:
                yield
            finally:
                _flush()
                for target, original in zip((1, 2), saved, strict=True):
                    os.dup2(original, target)
    finally:
        for original in saved:
            with contextlib.suppress(OSError):
                os.close(original)


def _flush() -> None:
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):  # the disk is full, or the task has closed it
            stream.flush()


def _as_if_started_afresh(environment: Mapping[str, str]) -> None:
    """A fork has of the process that it comes from what was chosen there once: for all forks the same."""
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # the user's own choice, or Python's
    tempfile.tempdir = None
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def _end_with_driver(parent: int) -> None:
    """Do not outlive the driver, nor what this was forked from: half a second later it is over here too."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    while driver.is_alive() and os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
