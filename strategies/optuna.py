"""Worker processes on this machine, fed by Optuna's ask and tell."""

from __future__ import annotations

import os
import queue
import secrets
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Listener
from typing import Any

import cloudpickle

from evaluators import Evaluator, Outcome, Task
from slimsearch_errors import SlimsearchError
from strategies import _worker
from strategies._strategy import Failure, Search


@dataclass
class Optuna:
    """Keeps `workers` processes busy; one that dies or exceeds the time limit is replaced.

    Attributes:
        workers: number of processes, each with one thread.
        trial_timeout: seconds after which a task is ended and counts as failed; None: never.
    """

    workers: int = 2
    trial_timeout: float | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise SlimsearchError(f"--workers {self.workers} is less than 1")
        if self.trial_timeout is not None and self.trial_timeout <= 0:
            raise SlimsearchError(f"--trial-timeout {self.trial_timeout:g} is not above 0")

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate everything that `search` asks for.

        Raises:
            KeyboardInterrupt: after the workers were stopped.
        """
        events: queue.SimpleQueue[_Report | _Done] = queue.SimpleQueue()
        with _line_for_workers(events) as (address, key), _pool(self.workers, evaluator, address, key) as pool:
            running: set[int] = set()
            while True:
                while len(running) < self.workers and (task := search.ask()) is not None:
                    running.add(task.number)
                    self._submit(pool, task, events)
                if not running:
                    return
                event = events.get()
                if isinstance(event, _Done):
                    running.discard(event.number)
                    search.tell(event.number, event.result)
                elif event.number in running:
                    event.answer(search.report(event.number, event.epoch, event.metrics))

    def _submit(self, pool: Any, task: Task, events: queue.SimpleQueue[Any]) -> None:
        future = pool.schedule(_worker.run, args=[task], timeout=self.trial_timeout)
        future.add_done_callback(lambda done: events.put(_Done(task.number, self._result(done))))

    def _result(self, future: Any) -> Outcome | Failure:
        from concurrent.futures import TimeoutError as TaskTimeout

        from pebble import ProcessExpired

        try:
            return future.result()  # type: ignore[no-any-return]
        except TaskTimeout:
            return Failure(f"took longer than --trial-timeout {self.trial_timeout:g} s")
        except ProcessExpired as error:
            return Failure(f"its worker process died (exit code {error.exitcode})", worker_died=True)
        except BaseException as error:
            return Failure(f"{type(error).__name__}: {error}", worker_died=True)


@dataclass(frozen=True)
class _Done:
    number: int
    result: Outcome | Failure


@dataclass(frozen=True)
class _Report:
    number: int
    epoch: int
    metrics: Mapping[str, float]
    line: Connection

    def answer(self, go_on: bool) -> None:
        with suppress(OSError):  # the worker died meanwhile; its future tells
            self.line.send(go_on)


@contextmanager
def _line_for_workers(events: queue.SimpleQueue[Any]) -> Iterator[tuple[str, bytes]]:
    """A socket of this user's to which workers connect; what they report is put into `events`."""
    key = secrets.token_bytes(32)
    with tempfile.TemporaryDirectory(prefix="slimsearch-") as folder:
        listener = Listener(os.path.join(folder, "driver"), "AF_UNIX", backlog=64, authkey=key)

        def listen(line: Connection) -> None:
            try:
                while True:
                    number, epoch, metrics = line.recv()
                    events.put(_Report(number, epoch, metrics, line))
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


@contextmanager
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
