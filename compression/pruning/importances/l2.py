"""L2 magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from slimsearch.compression.pruning.importances import Importance

if TYPE_CHECKING:
    from torch import Tensor, nn


class L2(Importance):
    """The square of each weight; for a channel the L2 norm of its filter.

    Source: He et al. 2018, "Soft filter pruning". Filters that are cut together, as at the ends of a residual block,
    have the mean of their norms.
    """

    of_filters: ClassVar[bool] = True

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: weight.square() for name, weight in weights.items()}

    def channels(self, layer: nn.Module, scores: Tensor) -> Tensor | None:
        return scores.abs().sum(dim=1).sqrt()
