"""NNI's DARTS with the Gumbel softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from slimsearch.search_spaces import NniSpace
from slimsearch.strategies._nni.oneshot import OneShot


@dataclass
class NniGumbelDarts(OneShot):
    """`nni.nas.strategy.GumbelDARTS`: DARTS with noisy weights that approach a draw of one value over time.

    Source: Xie et al. 2019 (SNAS), Wu et al. 2019 (FBNet).
    """

    NAME: ClassVar[str] = "nni_gumbel_darts"

    def strategy(self, space: NniSpace) -> Any:
        from nni.nas.strategy import GumbelDARTS

        from slimsearch.strategies._nni.supernet import MixedDropout

        return GumbelDARTS(mutation_hooks=[MixedDropout.mutate])
