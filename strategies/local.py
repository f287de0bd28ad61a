"""Worker processes on this machine: the default strategy, published as ``optuna``.

Optuna keeps the record (an Optuna study) and provides the samplers ``tpe`` and ``nsga2``.
"""

from __future__ import annotations

from dataclasses import dataclass

from slimsearch.evaluators import Evaluator
from slimsearch.strategies._pool.workers import Workers
from slimsearch.strategies._strategy import Search, StrategySettings


@dataclass
class Local:
    """Evaluates tasks in `local_workers` processes of one thread each; replaces those that die or time out."""

    settings: StrategySettings

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate everything that `search` asks for.

        Raises:
            KeyboardInterrupt: after the workers were stopped.
        """
        with Workers(self.settings.local_workers, self.settings.trial_timeout, evaluator) as workers:
            workers.evaluate(search)
