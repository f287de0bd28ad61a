"""NNI's random search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from slimsearch.strategies._nni.multi_trial import MultiTrial


@dataclass
class NniRandom(MultiTrial):
    """`nni.nas.strategy.Random`: uniform draws without repeats.

    NNI counts samples that differ in an inactive choice as different; the record answers the repeats.
    """

    NAME: ClassVar[str] = "nni_random"

    def _strategy(self, choices: dict[str, Any]) -> Any:
        from nni.nas.strategy import Random

        return Random(seed=self.settings.seed)
