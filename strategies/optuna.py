"""Worker processes on this machine, fed by Optuna's ask and tell."""

from __future__ import annotations

from dataclasses import dataclass

from slimsearch.evaluators import Evaluator
from slimsearch.strategies._pool import workers as _workers
from slimsearch.strategies._pool.workers import Done, Workers
from slimsearch.strategies._strategy import Search


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
        _workers.check(self.workers, self.trial_timeout)

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate everything that `search` asks for.

        Raises:
            KeyboardInterrupt: after the workers were stopped.
        """
        with Workers(self.workers, self.trial_timeout, evaluator) as workers:
            while True:
                while workers.free and (task := search.ask()) is not None:
                    workers.submit(task)
                if not workers.busy:
                    return
                event = workers.wait()
                if isinstance(event, Done):
                    search.tell(event.number, event.result)
                else:
                    event.answer(search.report(event.number, event.epoch, event.metrics))
