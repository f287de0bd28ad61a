"""Distance from the geometric median."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from slimsearch.compression.pruning.importances._importance import Importance

if TYPE_CHECKING:
    from torch import Tensor


class Fpgm(Importance):
    """How far a filter is from all others of its layer: what lies near their geometric median can be replaced.

    Source: He et al. 2019, "Filter pruning via geometric median", as torch-pruning implements it.
    """

    of_channels: ClassVar[bool] = True

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return weights

    def channels(self) -> Any:
        import torch_pruning

        return torch_pruning.importance.FPGMImportance(p=2, normalizer=None)
