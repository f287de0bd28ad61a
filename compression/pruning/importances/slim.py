"""Scale of the batch normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from slimsearch.compression.pruning.importances._importance import Importance

if TYPE_CHECKING:
    from torch import Tensor


class Slim(Importance):
    """The absolute scale that BatchNorm gives to a channel; layers without a BatchNorm are left whole.

    Source: Liu et al. 2017, "Network slimming", without the L1 penalty while the network is first trained.
    """

    of_channels: ClassVar[bool] = True

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return weights

    def channels(self) -> Any:
        import torch_pruning

        return torch_pruning.importance.BNScaleImportance(normalizer=None)
