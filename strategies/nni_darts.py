"""NNI's DARTS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from slimsearch.search_spaces import NniSpace
from slimsearch.strategies._nni.oneshot import OneShot


@dataclass
class NniDarts(OneShot):
    """`nni.nas.strategy.DARTS`, first order: all values of a choice run at once, weighted, and the weights are learned.

    Source: Liu, Simonyan and Yang 2019; widths and kernel sizes after Wan et al. 2020 (FBNetV2).
    """

    NAME: ClassVar[str] = "nni_darts"

    def strategy(self, space: NniSpace) -> Any:
        from nni.nas.strategy import DARTS

        from slimsearch.strategies._nni.supernet import MixedDropout

        return DARTS(mutation_hooks=[MixedDropout.mutate])
