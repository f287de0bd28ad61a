"""NNI's ProxylessNAS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from slimsearch.search_spaces import ModelSpace
from slimsearch.strategies._nni.oneshot import OneShot


@dataclass
class NniProxyless(OneShot):
    """`nni.nas.strategy.Proxyless`: one drawn layer of each choice runs at a time, and the odds are learned.

    Source: Cai, Zhu and Han 2019. It chooses between whole layers, and rates of dropout, alone. What differs from NNI:
    the most likely architecture comes out, as in the paper, where NNI draws one.
    """

    NAME: ClassVar[str] = "nni-proxyless"

    def strategy(self, space: ModelSpace) -> Any:
        from nni.nas.strategy import Proxyless

        from slimsearch.strategies._nni.supernet import MixedDropout

        return Proxyless(mutation_hooks=[MixedDropout.mutate])
