"""A pool of worker processes on this machine that evaluates the tasks of a search."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import cloudpickle

from slimsearch.evaluators import Evaluator, Outcome, Task
from slimsearch.running_time import is_suspended, running_seconds
from slimsearch.strategies._pool import fork_server as _fork_server
from slimsearch.strategies._pool import worker as _worker
from slimsearch.strategies._strategy import Failure, TaskSource

_log = logging.getLogger(__name__)

# Interval of checks for dead processes, whose forked children may keep the connection open.
_LOOK_SECONDS = 0.5
_SECONDS_TO_END = 1.0
_FROM_OUTSIDE = {-number for number in _fork_server.SIGNALS}


@dataclass(frozen=True)
class Done:
    """A task has ended."""

    number: int
    result: Outcome | Failure


@dataclass(frozen=True)
class EpochEnd:
    """A running task has finished an epoch and waits for an answer."""

    number: int
    epoch: int
    metrics: Mapping[str, float]
    line: Connection

    def answer(self, go_on: bool) -> None:
        """Let the task continue, or tell it to stop."""
        with contextlib.suppress(OSError):  # the worker has died, which `wait` detects
            self.line.send(go_on)


@dataclass
class _Worker:
    """A worker process.

    Attributes:
        line: the driver's end of its connection.
        task: number of its task, or None.
        timeout: of the task, in seconds.
        began: `running_seconds` at the start of the task's code, later if it was suspended; None before.
        lost: whether its connection is closed or unusable.
    """

    process: BaseProcess
    line: Connection
    task: int | None = None
    timeout: float | None = None
    began: float | None = None
    lost: bool = False

    @property
    def left(self) -> float:
        """Seconds until its task times out."""
        if self.timeout is None or self.began is None:
            return float("inf")
        return max(0.0, self.began + self.timeout - running_seconds())


class Workers:
    """Worker processes with one thread each; replaces those that die or exceed the time limit.

    Each process has one task at a time, so that its death affects one task only. A context manager, which ends all
    processes on exit. Not thread-safe.

    Args:
        count: number of processes.
        timeout: seconds after which a task is stopped and counts as failed; None for no limit.
        evaluator: of the tasks; sent to the processes by value.
    """

    def __init__(self, count: int, timeout: float | None, evaluator: Evaluator) -> None:
        self._count, self._timeout = count, timeout
        self._evaluator = cloudpickle.dumps(evaluator)
        self._workers: list[_Worker] = []
        self._events: deque[EpochEnd | Done] = deque()
        self._context = contextlib.ExitStack()
        self._looked = running_seconds()

    def __enter__(self) -> Workers:
        with self._context as context:
            context.callback(self._end)
            for _ in range(self._count):
                self._start()
            self._context = context.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    @property
    def free(self) -> bool:
        """Whether a process is idle."""
        return self._running < self._count

    @property
    def busy(self) -> bool:
        """Whether a task is being evaluated, or its end has not been returned by `wait` yet."""
        return self._running > 0

    @property
    def _running(self) -> int:
        waiting = sum(isinstance(event, Done) for event in self._events)
        return waiting + sum(worker.task is not None for worker in self._workers)

    def evaluate(self, source: TaskSource) -> None:
        """Evaluate all tasks of `source`."""
        while True:
            while self.free and (task := source.ask()) is not None:
                self.submit(task)
            if not self.busy:
                return
            event = self.wait()
            if isinstance(event, Done):
                source.tell(event.number, event.result)
            else:
                event.answer(source.report(event.number, event.epoch, event.metrics))

    def train(self, task: Task, name: str) -> Outcome | Failure:
        """Run a task that trains a supernet, without timeout, and log its epochs; no other task may be running.

        Args:
            task: of the training.
            name: of the supernet, for the log.
        """
        self.submit(task, limited=False)
        while not isinstance(event := self.wait(), Done):
            metrics = ", ".join(f"{metric} {value:.4f}" for metric, value in event.metrics.items())
            _log.info("%s, epoch %d: %s", name, event.epoch, metrics)
            event.answer(True)
        return event.result

    def submit(self, task: Task, *, limited: bool = True) -> None:
        """Start `task` in an idle worker, without timeout if not `limited`."""
        self._discard_dead()
        idle = next((worker for worker in self._workers if worker.task is None), None) or self._start()
        idle.task, idle.timeout, idle.began = task.number, self._timeout if limited else None, None
        try:
            idle.line.send(task)
        except OSError:  # it died before it got the task
            self._lose(idle, "its worker process died before it began")

    def wait(self) -> EpochEnd | Done:
        """The next event."""
        while not self._events:
            lines = {worker.line: worker for worker in self._workers}
            seconds = min([_LOOK_SECONDS, *(worker.left for worker in self._workers)])
            for line in wait([*lines, *(worker.process.sentinel for worker in self._workers)], seconds):
                if isinstance(line, Connection):
                    self._listen(lines[line])
            now, before = running_seconds(), self._looked
            self._looked = now
            for worker in list(self._workers):
                if worker.began is not None and worker.process.pid is not None and is_suspended(worker.process.pid):
                    worker.began += now - max(before, worker.began)
                self._look_after(worker)
        return self._events.popleft()

    def _start(self) -> _Worker:
        here, there = multiprocessing.Pipe(duplex=True)
        process = _fork_server.start(_worker.serve, (there, self._evaluator))
        there.close()
        worker = _Worker(process, here)
        self._workers.append(worker)
        return worker

    def _listen(self, worker: _Worker) -> None:
        """Receive one message; anything else means that the worker is lost."""
        try:
            kind, content = worker.line.recv()
        except Exception:  # the connection was cut, or the task has written to it
            worker.lost = True
            return
        if worker.task is None:
            worker.lost = True
        elif kind == _worker.BEGUN:
            worker.began = running_seconds()
        elif kind == _worker.REPORT:
            epoch, metrics = content
            self._events.append(EpochEnd(worker.task, epoch, metrics, worker.line))
        else:
            self._events.append(Done(worker.task, content))
            worker.task = worker.began = None

    def _look_after(self, worker: _Worker) -> None:
        """Replace a worker that is lost, or whose task has timed out."""
        if worker.left == 0:
            self._lose(worker, f"took longer than --trial-timeout {worker.timeout:g} s", failed=True)
        elif worker.lost or not worker.process.is_alive():
            while not worker.lost and worker.line.poll():  # its last messages
                self._listen(worker)
            self._lose(worker, "its worker process died ({})")

    def _lose(self, worker: _Worker, error: str, failed: bool = False) -> None:
        """End a worker and its task; an idle worker is replaced when it is needed."""
        number, begun = worker.task, worker.began is not None
        ended_by = worker.process.exitcode
        cut = worker.lost and not _ended([worker.process], _LOOK_SECONDS)  # a process that ends also closes its line
        _stop([worker.process])
        worker.line.close()
        self._workers.remove(worker)
        end = _end_of(worker.process.exitcode, cut=cut)
        worker.process.close()
        if number is None:
            return
        text = error.format(end)
        # Its reports no longer need an answer.
        self._events = deque(e for e in self._events if isinstance(e, Done) or e.number != number)
        # A job scheduler or a terminal that closes may end workers before this process.
        blameless = not failed and (not begun or ended_by in _FROM_OUTSIDE)
        self._events.append(Done(number, Failure(text, worker_died=not failed, blameless=blameless)))
        self._start()

    def _discard_dead(self) -> None:
        for worker in list(self._workers):
            if worker.task is None and not worker.process.is_alive():
                self._lose(worker, "")

    def _end(self) -> None:
        for worker in self._workers:
            worker.line.close()
        _stop([worker.process for worker in self._workers])
        for worker in self._workers:
            worker.process.close()
        self._workers.clear()


def _stop(processes: list[BaseProcess]) -> None:
    """End processes with SIGTERM, then with SIGKILL."""
    for number, seconds in ((signal.SIGTERM, _SECONDS_TO_END), (signal.SIGKILL, float("inf"))):
        for process in processes:
            if process.is_alive() and process.pid is not None:
                with contextlib.suppress(ProcessLookupError):  # it has ended since
                    os.kill(process.pid, number)
        _ended(processes, seconds)


def _ended(processes: list[BaseProcess], seconds: float) -> bool:
    """Whether all processes end within `seconds`; `join` would also wait for their forked children."""
    deadline = time.monotonic() + seconds
    while alive := any(process.is_alive() for process in processes):
        if time.monotonic() >= deadline:
            break
        time.sleep(0.01)
    return not alive


def _end_of(exit_code: int | None, *, cut: bool) -> str:
    """How a process ended, in words."""
    if cut:
        return "its connection to the driver was closed"
    if exit_code == -signal.SIGKILL:
        return "killed by SIGKILL: perhaps the machine's memory was used up"
    if exit_code is not None and exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"
