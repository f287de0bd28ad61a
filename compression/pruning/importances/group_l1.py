"""L1 magnitude over all coupled layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from slimsearch.compression.pruning.importances import Importance

if TYPE_CHECKING:
    from torch import Tensor


class GroupL1(Importance):
    """The sum of a channel's absolute weights in each layer that is cut with it: those that write, scale or read it.

    Source: the group magnitude of DepGraph (Fang et al. 2023), with the mean over the layers.
    """

    of_channels: ClassVar[bool] = True

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: weight.abs() for name, weight in weights.items()}
