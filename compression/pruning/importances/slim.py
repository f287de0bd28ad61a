"""Scale of the batch normalization."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from slimsearch.compression.pruning.importances import Importance

if TYPE_CHECKING:
    from torch import Tensor, nn


class Slim(Importance):
    """The absolute scale that BatchNorm gives to a channel; layers without a BatchNorm are left whole.

    Source: Liu et al. 2017, "Network slimming", without the L1 penalty while the network is first trained.
    """

    of_channels: ClassVar[bool] = True

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return weights

    def channels(self, layer: nn.Module, scores: Tensor) -> Tensor | None:
        import torch

        is_norm = isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)
        return super().channels(layer, scores) if is_norm else None
