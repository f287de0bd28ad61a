"""Weight sharing, published as ``supernet``: searches the subnets of a trained supernet, then trains the best."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Evaluator, Outcome, ReportEpoch, Task
from slimsearch.search_spaces import Candidate
from slimsearch.strategies._pool.workers import Workers
from slimsearch.strategies._strategy import SUPERNET_TASK, Failure, Search, StrategySettings, Traits, supernet_folder
from slimsearch.strategies.local import Local


@runtime_checkable
class Prepared(Evaluator, Protocol):
    """An evaluator that needs a trained supernet."""

    @property
    def prepared(self) -> bool:
        """Whether the supernet is trained."""

    def prepare(self, *, report: ReportEpoch) -> None:
        """Train the supernet; an interrupted training continues."""


@dataclass
class WeightSharing:
    """Trains the evaluator's supernet in one worker, then keeps all workers busy as `Local` does.

    Source: single path one-shot (Guo et al. 2020); differences: see
    `slimsearch.evaluators.supernet.training.train_supernet`.
    The supernet's log is ``supernet/log.txt`` in the run directory. ``--trial-timeout`` does not limit its training.
    """

    traits: ClassVar[Traits] = Traits(shares_weights=True, needs_networks=True, needs_nni=True)

    settings: StrategySettings

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate everything that `search` asks for.

        Raises:
            SlimsearchError: the evaluator has no supernet, or its training failed.
            KeyboardInterrupt: after the workers were stopped.
        """
        if isinstance(evaluator, Prepared) and not evaluator.prepared:
            self._prepare(evaluator)
        Local(self.settings).run(search, evaluator)

    def _prepare(self, evaluator: Prepared) -> None:
        folder = supernet_folder(self.settings) or Path()
        folder.mkdir(parents=True, exist_ok=True)
        with Workers(1, None, _Preparation(evaluator)) as workers:
            result = workers.train(Task(SUPERNET_TASK, Candidate({}), 1, 0, folder), "supernet")
        if isinstance(result, Failure):
            raise SlimsearchError(f"the supernet could not be trained: {result.error} (log: {folder / 'log.txt'})")


@dataclass
class _Preparation:
    evaluator: Prepared

    def evaluate(self, task: Task, *, report: ReportEpoch) -> Outcome:
        self.evaluator.prepare(report=report)
        return Outcome({})
