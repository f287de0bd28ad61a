"""L1 magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from slimsearch.compression.pruning.importances import Importance

if TYPE_CHECKING:
    from torch import Tensor


class L1(Importance):
    """The absolute value of each weight; for a channel the L1 norm of its filter.

    Source: Li et al. 2017, "Pruning filters for efficient convnets"; for single weights Han et al. 2015. Filters that
    are cut together, as at the ends of a residual block, have the mean of their norms.
    """

    of_filters: ClassVar[bool] = True

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: weight.abs() for name, weight in weights.items()}
