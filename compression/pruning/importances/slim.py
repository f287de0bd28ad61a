"""Batch normalization scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from slimsearch.compression.pruning.importances import Importance

if TYPE_CHECKING:
    from torch import Tensor, nn


class Slim(Importance):
    """The absolute BatchNorm scale of a channel; layers without a BatchNorm are not pruned.

    Source: Liu et al. 2017, "Network slimming", without the L1 penalty in the network's training.
    """

    of_channels: ClassVar[bool] = True

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return weights

    def channels(self, layer: nn.Module, scores: Tensor) -> Tensor | None:
        import torch

        is_norm = isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)
        return super().channels(layer, scores) if is_norm else None
