"""The interface of a criterion of importance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor, nn


class Importance(ABC):
    """Scores weights: what is worth least is cut first.

    A channel is worth the mean of the sums of the scores of its weights over all layers that must be cut with it.
    A criterion that only knows channels overrides `channels`. An object serves one pruning: it may remember what it
    observed.
    """

    needs_gradients: ClassVar[bool] = False
    """`observe` must be called with gradients before `scores`."""
    needs_training: ClassVar[bool] = False
    """One look at the gradients says nothing: weights must be seen to move."""
    at_initialization: ClassVar[bool] = False
    """Scores the network before it is trained; the cut one is then trained from its initial weights."""
    of_channels: ClassVar[bool] = False
    """There are no scores of single weights."""

    def observe(self, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:  # noqa: B027 - optional
        """Look at the weights and the gradients of a step, by parameter name."""

    @abstractmethod
    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """One score for each weight, of the same shape, none below 0."""

    def prepare(self, module: nn.Module, images: Tensor) -> None:  # noqa: B027 - optional
        """A look at the whole module, for a criterion that needs more than gradients of the loss."""

    def channels(self) -> Any:
        """The torch-pruning importance that turns scores (in the place of weights) into one number a channel."""
        import torch_pruning

        return torch_pruning.importance.MagnitudeImportance(p=1, normalizer=None)

    def state(self) -> dict[str, Any]:
        """What was observed, for a training that is interrupted."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 - optional
        """Put back what `state` gave."""
