"""Connection sensitivity before training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from slimsearch.compression.pruning.importances._importance import Importance

if TYPE_CHECKING:
    from torch import Tensor


class Snip(Importance):
    """|weight * gradient| of the loss of the untrained network.

    Source: Lee et al. 2019, "SNIP: single-shot network pruning based on connection sensitivity", eq. 5, without the
    normalisation, which changes no order. The cut network is trained from its initial weights.
    """

    needs_gradients: ClassVar[bool] = True
    at_initialization: ClassVar[bool] = True

    def __init__(self) -> None:
        self._gradients: dict[str, Tensor] = {}

    def observe(self, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        for name, gradient in gradients.items():
            self._gradients[name] = self._gradients[name] + gradient if name in self._gradients else gradient.clone()

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: (weights[name] * gradient).abs() for name, gradient in self._gradients.items()}
