"""NNI's grid search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from slimsearch.strategies._nni.multi_trial import MultiTrial


@dataclass
class NniGrid(MultiTrial):
    """`nni.nas.strategy.GridSearch`: every combination, shuffled within each successive hundred."""

    NAME: ClassVar[str] = "nni_grid"

    def _strategy(self, choices: dict[str, Any]) -> Any:
        from nni.nas.strategy import GridSearch

        return GridSearch(seed=self.settings.seed)
