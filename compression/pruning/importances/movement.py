"""Movement of weights during training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from slimsearch.compression.pruning.importances import Importance

if TYPE_CHECKING:
    from torch import Tensor


class Movement(Importance):
    """The movement of a weight away from zero in training: minus the sum over steps of weight * gradient.

    Source: Sanh et al. 2020, "Movement pruning", eq. 5, with accumulated instead of learned scores, which section 3
    shows to be equivalent up to the rate; the weight is that after the step. Single weights that are cut keep their
    values, are scored on by the gradient at 0 (straight-through, section 4), and can come back. Channels cannot, since
    they have no gradient without the layers that read them. Shifted so that the least score of a layer is 0.
    """

    needs_gradients: ClassVar[bool] = True
    needs_training: ClassVar[bool] = True
    recovers: ClassVar[bool] = True

    def __init__(self) -> None:
        self._moved: dict[str, Tensor] = {}

    def observe(self, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        for name, gradient in gradients.items():
            step = -weights[name] * gradient
            known = self._moved.get(name)
            self._moved[name] = step if known is None else known.add_(step)

    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: moved - moved.min() for name, moved in self._moved.items()}

    def state(self) -> dict[str, Any]:
        return {"moved": self._moved}

    def restore(self, state: dict[str, Any]) -> None:
        self._moved = state["moved"]
