"""The main function of a worker process, which evaluates one task at a time and reports to the driver."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import operator
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

import cloudpickle

from slimsearch.errors import describe_error, related_errors
from slimsearch.evaluators import Evaluator, Outcome, ReportEpoch, Task, finite_numbers, use_one_thread
from slimsearch.files import unwritable
from slimsearch.strategies._pool.fork_server import SIGNALS
from slimsearch.strategies._pool.trial_log import candidate_line, metrics_line, output_to
from slimsearch.strategies._strategy import Failure

BEGUN, REPORT, DONE = "begun", "report", "done"
"""Messages of a worker: a task begins; it has finished an epoch and waits for an answer; it has ended."""

_OPEN_FILES = {errno.EMFILE, errno.ENFILE}


def serve(line: Connection, evaluator: bytes, environment: Mapping[str, str]) -> None:
    """Evaluate the tasks that arrive on `line`, in the driver's environment, until the driver ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C and stops its workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked by `fork_server.start`
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
            if isinstance(result, Failure) and result.worker_died:
                return


def evaluated(evaluator: Evaluator, task: Task, report: ReportEpoch) -> Outcome | Failure:
    """Evaluate `task`; returns an exception as one line, with its traceback in the task's log."""
    try:
        with output_to(task.directory / "log.txt"):
            _note(f"trial {task.number} begins: {candidate_line(task.candidate)}, seed {task.seed}")
            try:
                outcome = Outcome.checked(evaluator.evaluate(task, report=_noted(_checked(report), task)))
                _note(f"trial {task.number} ended: {metrics_line(outcome.metrics)}")
                return outcome
            except BaseException as error:  # a candidate may raise anything
                with contextlib.suppress(Exception):  # the log's disk may be full, the exception may not print
                    traceback.print_exc()
                if isinstance(error, SystemExit):
                    return Failure(f"{describe_error(error)}, in the middle of the trial")
                return _failure(error, task)
    except OSError as error:  # there is no log
        return _failure(error, task)


def _checked(report: ReportEpoch) -> ReportEpoch:
    """`report`, for an evaluator of the user's: raises an exception there if the metrics are no numbers."""
    return lambda epoch, metrics: report(operator.index(epoch), finite_numbers(metrics))


def _noted(report: ReportEpoch, task: Task) -> ReportEpoch:
    """`report`, with a line in the task's log for each epoch."""

    def noted(epoch: int, metrics: Mapping[str, float]) -> bool:
        of = f" of {task.fidelity}" if epoch <= task.fidelity else ""  # stages may have epochs of their own
        _note(f"trial {task.number}, epoch {epoch}{of}: {metrics_line(metrics)}")
        return report(epoch, metrics)

    return noted


def _note(line: str) -> None:
    """Print a line to the task's log."""
    with contextlib.suppress(OSError, ValueError):  # the disk is full, or the task has closed its output
        print(line, flush=True)


def _loaded(evaluator: bytes) -> Evaluator | Failure:
    try:
        return cloudpickle.loads(evaluator)  # type: ignore[no-any-return]
    except BaseException as error:  # user code may fail to load; each task then reports it
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


def _failure(error: BaseException, task: Task) -> Failure:
    # Earlier tasks of this process may have left files open, so the task may succeed in another one.
    if _no_file_opens() or any(isinstance(e, OSError) and e.errno in _OPEN_FILES for e in related_errors(error)):
        return Failure(describe_error(error), worker_died=True)
    reason = unwritable(task.directory, error)
    return Failure(describe_error(error)) if reason is None else Failure(reason, unwritable=True)


def _no_file_opens() -> bool:
    """Whether too many files are open; libraries then raise errors that speak of something else."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in _OPEN_FILES
    return False


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
