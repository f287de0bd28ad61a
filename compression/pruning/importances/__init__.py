"""Importances: how much each weight, or each channel, is worth; one criterion per file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor, nn


class Importance(ABC):
    """Scores weights; those with the lowest scores are cut first.

    A channel is worth the mean, over all layers that must be cut with it, of what `channels` gives for its weights
    there. An object serves one pruning: it may remember what it observed.
    """

    needs_gradients: ClassVar[bool] = False
    """`observe` must be called with gradients before `scores`."""
    needs_training: ClassVar[bool] = False
    """Gradients at one point of the training are not enough: the importance follows how weights move."""
    of_channels: ClassVar[bool] = False
    """Ranks channels alone, not single weights."""

    def observe(self, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:  # noqa: B027 - optional
        """Look at the weights and the gradients of a training step, by parameter name."""

    @abstractmethod
    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A score of each weight, of the same shape and not negative; `channels` gets them in place of the weights."""

    def channels(self, layer: nn.Module, scores: Tensor) -> Tensor | None:
        """What the channels of one layer are worth.

        Args:
            layer: a convolution, a Linear, a BatchNorm or a LayerNorm.
            scores: of the weights of each channel, (channels, weights per channel).

        Returns:
            (channels,), or None if the importance does not look at such layers.
        """
        return scores.abs().sum(dim=1)

    def state(self) -> dict[str, Any]:
        """What was observed, for a checkpoint of the training."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 - optional
        """Put back what `state` gave."""


__all__ = ["Importance"]
