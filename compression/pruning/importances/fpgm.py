"""Distance from the geometric median."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from slimsearch.compression.pruning.importances import Importance

if TYPE_CHECKING:
    from torch import Tensor, nn


class Fpgm(Importance):
    """The sum of a filter's Euclidean distances from all others of its layer: filters near the median are redundant.

    Source: He et al. 2019, "Filter pruning via geometric median", eq. 6. Filters that are cut together, as at the ends
    of a residual block, have the mean of their sums.
    """

    of_channels: ClassVar[bool] = True
    of_filters: ClassVar[bool] = True

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return weights

    def channels(self, layer: nn.Module, scores: Tensor) -> Tensor | None:
        import torch

        # Without the shortcut through a matrix product, whose rounding hides small distances.
        return torch.cdist(scores, scores, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=0)
