"""NNI's ProxylessNAS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from slimsearch.search_spaces import NniSpace
from slimsearch.strategies._nni.oneshot import OneShot


@dataclass
class NniProxyless(OneShot):
    """`nni.nas.strategy.Proxyless`: one drawn layer of each choice runs at a time, and the odds are learned.

    Source: Cai, Zhu and Han 2019. Chooses between whole layers and dropout rates only. Difference from NNI: the result
    is the most likely architecture, as in the paper, not a random draw.
    """

    NAME: ClassVar[str] = "nni_proxyless"

    def strategy(self, space: NniSpace) -> Any:
        from nni.nas.strategy import Proxyless

        from slimsearch.strategies._nni.supernet import MixedDropout

        return Proxyless(mutation_hooks=[MixedDropout.mutate])
