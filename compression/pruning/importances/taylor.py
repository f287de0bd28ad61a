"""First-order Taylor expansion of the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from slimsearch.compression.pruning.importances import Importance

if TYPE_CHECKING:
    from torch import Tensor


class Taylor(Importance):
    """The squared first-order change of the loss if the weight were zero: (weight * gradient)^2, averaged.

    Source: Molchanov et al. 2019, "Importance estimation for neural network pruning", eq. 8. Difference: summed over
    the weights of a channel instead of computed from the channel's scale or output.
    """

    needs_gradients: ClassVar[bool] = True

    _DECAY = 0.97  # of the moving average, per observation
    _EVERY = 4  # steps per observation, which passes over all weights

    def __init__(self) -> None:
        self._average: dict[str, Tensor] = {}
        self._steps = 0

    def observe(self, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        self._steps += 1
        if self._steps % self._EVERY != 1:
            return
        for name, gradient in gradients.items():
            change = (weights[name] * gradient).square()
            known = self._average.get(name)
            self._average[name] = change if known is None else known.lerp_(change, 1 - self._DECAY)

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(self._average)

    def state(self) -> dict[str, Any]:
        return {"average": self._average, "steps": self._steps}

    def restore(self, state: dict[str, Any]) -> None:
        self._average, self._steps = state["average"], state["steps"]
