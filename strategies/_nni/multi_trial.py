"""NNI's multi-trial strategies: NNI proposes candidates, worker processes of this machine evaluate them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

from slimsearch.evaluators import Evaluator
from slimsearch.search_spaces import Space
from slimsearch.strategies._pool.workers import Workers
from slimsearch.strategies._proposer import Proposer, ProposerSearch
from slimsearch.strategies._strategy import Search, StrategySettings, Traits, space_of


@dataclass
class MultiTrial(ABC):
    """An NNI strategy that learns from one score per finished trial; more is better.

    With one worker, the same seed and the same results give the same proposals.
    """

    NAME: ClassVar[str]
    traits: ClassVar[Traits] = Traits(proposes=True)

    settings: StrategySettings

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate what `search` asks for and what NNI proposes.

        Raises:
            SlimsearchError: this strategy cannot search the space, or it failed in NNI.
            KeyboardInterrupt: after the workers were stopped.
        """
        space = space_of(self.NAME, evaluator)
        with (
            closing(self.proposer(space)) as proposer,
            Workers(self.settings.local_workers, self.settings.trial_timeout, evaluator) as workers,
        ):
            workers.evaluate(ProposerSearch(search, proposer, space))

    def proposer(self, space: Space) -> Proposer:
        """The strategy's algorithm without workers; close it after use.

        Raises:
            SlimsearchError: it cannot search `space`.
        """
        from slimsearch.strategies._nni.proposer import NniProposer, choices_of

        choices, point_of = choices_of(space)
        return NniProposer(self.NAME, self._strategy(choices), choices, point_of)

    @abstractmethod
    def _strategy(self, choices: dict[str, Any]) -> Any:
        """The NNI strategy for `choices`: NNI's `Categorical` and constraints by label.

        Raises:
            SlimsearchError: it cannot search them.
        """
