"""NNI's random one-shot strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from slimsearch.search_spaces import ModelSpace
from slimsearch.strategies._nni.oneshot import OneShot

if TYPE_CHECKING:
    from slimsearch.strategies._nni.supernet import OneShotSupernet


@dataclass
class NniRandomOneshot(OneShot):
    """`nni.nas.strategy.RandomOneShot`: each step trains one random path of the supernet.

    Source: Guo et al. 2020 (SPOS). NNI leaves the search in the trained supernet to the user: here up to 100 random
    architectures are judged with its weights, on images that it has not learned, and the best five are trained on
    their own. Rates of dropout make no difference to that judgement.
    """

    NAME: ClassVar[str] = "nni-random-oneshot"
    HELD_OUT: ClassVar[float] = 0.2
    OFFERED: ClassVar[int] = 5
    JUDGED: ClassVar[int] = 100

    def strategy(self, space: ModelSpace) -> Any:
        from slimsearch.strategies._nni.supernet import SeededRandomOneShot

        return SeededRandomOneShot(space, self.settings.seed)

    def best(self, supernet: OneShotSupernet) -> list[dict[str, Any]]:
        return supernet.ranked(self.JUDGED)
