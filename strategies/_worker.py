"""What runs in a worker process: one evaluator, one task at a time, a line back to the driver."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Client, Connection

import cloudpickle

from evaluators import Evaluator, Outcome, Report, Task, use_one_thread
from strategies._strategy import Failure

_evaluator: Evaluator | Failure | None = None
_driver: Connection | None = None


def start(evaluator: bytes, address: str, key: bytes, driver: int) -> None:
    """Once in each worker: load the evaluator, and connect to the driver of process number `driver`."""
    global _evaluator, _driver
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which then stops its workers
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    use_one_thread()
    _driver = Client(address, "AF_UNIX", key)
    try:
        _evaluator = cloudpickle.loads(evaluator)
    except Exception as error:  # what belongs to the user may not load here; each task then says so
        _evaluator = Failure(f"a worker cannot load the evaluator: {type(error).__name__}: {error}")


def run(task: Task) -> Outcome | Failure:
    """What `evaluated` gives, with reports to the driver."""
    assert _evaluator is not None
    return _evaluator if isinstance(_evaluator, Failure) else evaluated(_evaluator, task, _Reporter(task.number))


def evaluated(evaluator: Evaluator, task: Task, report: Report) -> Outcome | Failure:
    """Evaluate `task`; what it raises comes back as a line, with the traceback in the task's log."""
    with _output_to(task):
        try:
            return evaluator.evaluate(task, report=report)
        except Exception as error:  # a candidate may raise anything
            traceback.print_exc()
            first_line = str(error).strip().partition("\n")[0]
            return Failure(f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__)


class _Reporter:
    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        assert _driver is not None
        _driver.send((self._number, epoch, dict(metrics)))
        return bool(_driver.recv())


@contextlib.contextmanager
def _output_to(task: Task) -> Iterator[None]:
    """Whatever the task prints, from Python or below it, goes to its log and not into the driver's display."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with (task.directory / "log.txt").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, original in zip((1, 2), saved, strict=True):
                os.dup2(original, target)
                os.close(original)


def _end_with(driver: int) -> None:
    """Do not outlive the driver: a killed one takes its workers along within half a second."""
    while os.getppid() == driver:
        time.sleep(0.5)
    os._exit(1)
