"""L2 magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimsearch.compression.pruning.importances import Importance

if TYPE_CHECKING:
    from torch import Tensor


class L2(Importance):
    """The square of each weight; for a channel its squared L2 norm.

    Source: He et al. 2018, "Soft filter pruning".
    """

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: weight.square() for name, weight in weights.items()}
