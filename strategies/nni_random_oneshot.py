"""NNI's random one-shot strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from slimsearch.search_spaces import NniSpace
from slimsearch.strategies._nni.oneshot import OneShot


@dataclass
class NniRandomOneshot(OneShot):
    """`nni.nas.strategy.RandomOneShot`: each step trains one random path of the supernet.

    Source: Guo et al. 2020 (SPOS). NNI does not search the trained supernet. Here up to 100 random architectures are
    ranked by their accuracy with its weights on held-out images, and the best five are trained. The ranking ignores
    dropout rates.
    """

    NAME: ClassVar[str] = "nni_random_oneshot"
    HELD_OUT: ClassVar[float] = 0.2
    OFFERED: ClassVar[int] = 5
    RANKED: ClassVar[int] = 100

    def strategy(self, space: NniSpace) -> Any:
        from slimsearch.strategies._nni.supernet import SeededRandomOneShot

        return SeededRandomOneShot(space, self.settings.seed)
