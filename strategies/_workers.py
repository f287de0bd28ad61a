"""Worker processes on this machine: tasks go in, their reports and results come out as they arrive."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, Listener
from typing import Any

import cloudpickle

from evaluators import Evaluator, Outcome, Task
from slimsearch_errors import SlimsearchError
from strategies import _worker
from strategies._strategy import Failure


@dataclass(frozen=True)
class Done:
    """A task has come to its end."""

    number: int
    result: Outcome | Failure


@dataclass(frozen=True)
class Report:
    """A running task tells of its progress, and waits for an answer."""

    number: int
    epoch: int
    metrics: Mapping[str, float]
    line: Connection

    def answer(self, go_on: bool) -> None:
        """Let the task go on, or tell it to stop."""
        with contextlib.suppress(OSError):  # the worker died meanwhile; its future tells
            self.line.send(go_on)


class Workers:
    """`count` processes, each with one thread; one that dies or exceeds the time limit is replaced.

    A context: at its end, also after an exception, the processes are gone. Called from one thread only.

    Args:
        count: number of processes.
        timeout: seconds after which a task is ended and counts as failed; None: never.
        evaluator: what evaluates the tasks; it travels to the processes by value.

    Raises:
        SlimsearchError: `count` or `timeout` makes no sense.
    """

    def __init__(self, count: int, timeout: float | None, evaluator: Evaluator) -> None:
        check(count, timeout)
        self._count, self._timeout, self._evaluator = count, timeout, evaluator
        self._events: queue.SimpleQueue[Report | Done] = queue.SimpleQueue()
        self._running: set[int] = set()
        self._context = contextlib.ExitStack()
        self._pool: Any = None

    def __enter__(self) -> Workers:
        with self._context as context:
            address, key = context.enter_context(_line_for_workers(self._events))
            self._pool = context.enter_context(_pool(self._count, self._evaluator, address, key))
            self._context = context.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    @property
    def free(self) -> bool:
        """Whether a process has nothing to do."""
        return len(self._running) < self._count

    @property
    def busy(self) -> bool:
        """Whether a task is being evaluated."""
        return bool(self._running)

    def submit(self, task: Task, *, limited: bool = True) -> None:
        """Have `task` evaluated; without `limited` it may take as long as it likes."""
        timeout = self._timeout if limited else None
        self._running.add(task.number)
        future = self._pool.schedule(_worker.run, args=[task], timeout=timeout)
        future.add_done_callback(lambda done: self._events.put(Done(task.number, self._result(done))))

    def wait(self) -> Report | Done:
        """The next thing that happens; a report of a task that has ended meanwhile is left out."""
        while True:
            event = self._events.get()
            if isinstance(event, Done):
                self._running.discard(event.number)
                return event
            if event.number in self._running:
                return event

    def _result(self, future: Any) -> Outcome | Failure:
        from concurrent.futures import TimeoutError as TaskTimeout

        from pebble import ProcessExpired

        try:
            return future.result()  # type: ignore[no-any-return]
        except TaskTimeout:
            return Failure(f"took longer than --trial-timeout {self._timeout:g} s")
        except ProcessExpired as error:
            return Failure(f"its worker process died (exit code {error.exitcode})", worker_died=True)
        except BaseException as error:
            return Failure(f"{type(error).__name__}: {error}", worker_died=True)


def check(count: int, timeout: float | None) -> None:
    """Refuse options that no pool can have.

    Raises:
        SlimsearchError: the line names the option.
    """
    if count < 1:
        raise SlimsearchError(f"--workers {count} is less than 1")
    if timeout is not None and timeout <= 0:
        raise SlimsearchError(f"--trial-timeout {timeout:g} is not above 0")


@contextlib.contextmanager
def _line_for_workers(events: queue.SimpleQueue[Any]) -> Iterator[tuple[str, bytes]]:
    """A socket of this user's to which workers connect; what they report is put into `events`."""
    key = secrets.token_bytes(32)
    with tempfile.TemporaryDirectory(prefix="slimsearch-") as folder:
        listener = Listener(os.path.join(folder, "driver"), "AF_UNIX", backlog=64, authkey=key)

        def listen(line: Connection) -> None:
            try:
                while True:
                    number, epoch, metrics = line.recv()
                    events.put(Report(number, epoch, metrics, line))
            except (EOFError, OSError):
                line.close()

        def accept() -> None:
            while True:
                try:
                    line = listener.accept()
                except OSError:
                    return  # closed: the run is over
                except Exception:
                    continue  # a worker that died while it connected
                threading.Thread(target=listen, args=(line,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield os.path.join(folder, "driver"), key
        finally:
            listener.close()


@contextlib.contextmanager
def _pool(workers: int, evaluator: Evaluator, address: str, key: bytes) -> Iterator[Any]:
    from loky.backend import get_context
    from pebble import ProcessPool

    # OpenMP reads this when a worker imports torch; the driver itself keeps what it has.
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    # loky's processes start afresh and do not import the main script again, so that neither a notebook nor a
    # script without a main guard is run a second time; pebble replaces those that die.
    pool = ProcessPool(
        max_workers=workers,
        context=get_context("loky"),
        initializer=_worker.start,
        initargs=[cloudpickle.dumps(evaluator), address, key, os.getpid()],
    )
    try:
        yield pool
        pool.close()
    finally:
        pool.stop()
        pool.join()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
