"""Worker processes on this machine: the default strategy, published as ``optuna``.

Optuna's part in it is elsewhere: the record is an Optuna study, and the samplers ``tpe``, ``gp``, ``nsga2`` and
``nsga3`` are Optuna's.
"""

from __future__ import annotations

from dataclasses import dataclass

from slimsearch.evaluators import Evaluator
from slimsearch.strategies._pool.workers import Workers
from slimsearch.strategies._strategy import Search, StrategySettings


@dataclass
class Local:
    """Keeps `local_workers` processes busy, each with one thread; one that dies or takes too long is replaced."""

    settings: StrategySettings

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate everything that `search` asks for.

        Raises:
            KeyboardInterrupt: after the workers were stopped.
        """
        with Workers(self.settings.local_workers, self.settings.trial_timeout, evaluator) as workers:
            workers.evaluate(search)
