"""NNI's regularized evolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from slimsearch.errors import SlimsearchError
from slimsearch.strategies._nni.multi_trial import MultiTrial


@dataclass
class NniEvolution(MultiTrial):
    """`nni.nas.strategy.RegularizedEvolution`, with NNI's defaults: the first hundred candidates are random.

    Source: Real et al. 2019. Difference, in NNI: each choice is redrawn with a probability of 5%.

    Attributes:
        population: number of living candidates; the oldest dies first.
        tournament: number of candidates drawn from the population, of which the best is the next parent.
    """

    NAME: ClassVar[str] = "nni_evolution"

    population: int = 100
    tournament: int = 25

    def __post_init__(self) -> None:
        if not 1 <= self.tournament <= self.population:
            raise SlimsearchError(f"tournament {self.tournament} is not between 1 and population {self.population}")
        if self.population <= self.settings.local_workers:
            # A parent is drawn while all of the first population may still be running.
            raise SlimsearchError(f"population {self.population} is not above --workers {self.settings.local_workers}")

    def _strategy(self, choices: dict[str, Any]) -> Any:
        from nni.nas.strategy import RegularizedEvolution

        return RegularizedEvolution(
            population_size=self.population, sample_size=self.tournament, seed=self.settings.seed
        )
