"""First-order Taylor expansion of the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from slimsearch.compression.pruning.importances import Importance

if TYPE_CHECKING:
    from torch import Tensor


class Taylor(Importance):
    """The squared first-order change of the loss if the weight were zero: (weight * gradient)^2, averaged.

    Source: Molchanov et al. 2019, "Importance estimation for neural network pruning", eq. 8. Difference: summed over
    the weights of a channel instead of computed from the channel's scale or output. The mean over the observed batches;
    after 33 of them a moving average, in which the newest has a weight of 3%.
    """

    needs_gradients: ClassVar[bool] = True
    observe_every: ClassVar[int] = 4

    _NEWEST = 0.03

    def __init__(self) -> None:
        self._average: dict[str, Tensor] = {}
        self._observed = 0

    def observe(self, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        self._observed += 1
        for name, gradient in gradients.items():
            change = (weights[name] * gradient).square()
            known = self._average.get(name)
            share = max(1 / self._observed, self._NEWEST)
            self._average[name] = change if known is None else known.lerp_(change, share)

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(self._average)

    def state(self) -> dict[str, Any]:
        return {"average": self._average, "observed": self._observed}

    def restore(self, state: dict[str, Any]) -> None:
        self._average, self._observed = state["average"], state["observed"]
