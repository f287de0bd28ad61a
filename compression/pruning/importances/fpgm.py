"""Distance from the geometric median."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from slimsearch.compression.pruning.importances import Importance

if TYPE_CHECKING:
    from torch import Tensor, nn


class Fpgm(Importance):
    """The sum of a filter's distances from all others of its layer: filters near the median are redundant.

    Source: He et al. 2019, "Filter pruning via geometric median". As in torch-pruning, the distances are Euclidean
    distances between squared weights, and include the layers that read the channels. Norm layers are ignored.
    """

    of_channels: ClassVar[bool] = True

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return weights

    def channels(self, layer: nn.Module, scores: Tensor) -> Tensor | None:
        import torch

        if not isinstance(layer, torch.nn.Linear | torch.nn.modules.conv._ConvNd):
            return None
        squares = scores.square()[None]
        return torch.cdist(squares, squares)[0].sum(dim=0)
