"""Worker processes on this machine, fed by Optuna's ask and tell."""

from __future__ import annotations

from dataclasses import dataclass

from slimsearch.evaluators import Evaluator
from slimsearch.strategies._pool.workers import Done, Workers
from slimsearch.strategies._strategy import Search, StrategySettings


@dataclass
class Optuna:
    """Keeps `local_workers` processes busy, each with one thread; one that dies or takes too long is replaced."""

    settings: StrategySettings

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate everything that `search` asks for.

        Raises:
            KeyboardInterrupt: after the workers were stopped.
        """
        with Workers(self.settings.local_workers, self.settings.trial_timeout, evaluator) as workers:
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
