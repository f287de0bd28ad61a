"""NNI's DARTS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from slimsearch.search_spaces import ModelSpace
from slimsearch.strategies._nni.oneshot import OneShot

if TYPE_CHECKING:
    from slimsearch.strategies._nni.supernet import OneShotSupernet


@dataclass
class NniDarts(OneShot):
    """`nni.nas.strategy.DARTS`, first order: all values of a choice run at once, weighted, and the weights are learned.

    Source: Liu, Simonyan and Yang 2019; widths and kernel sizes after Wan et al. 2020 (FBNetV2).
    """

    NAME: ClassVar[str] = "nni-darts"

    def strategy(self, space: ModelSpace) -> Any:
        from nni.nas.strategy import DARTS

        from slimsearch.strategies._nni.supernet import MixedDropout

        return DARTS(mutation_hooks=[MixedDropout.mutate])

    def best(self, supernet: OneShotSupernet) -> list[dict[str, Any]]:
        return [supernet.export()]
