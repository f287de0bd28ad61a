"""Importances: criteria that score weights or channels for pruning, one per file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor, nn


class Importance(ABC):
    """Scores weights; those with the lowest scores are cut first.

    The score of a channel is the mean of `channels` over all layers that are cut together, or with `of_filters` over
    those that write the channel. An object serves one pruning, and may store what it observes.
    """

    needs_gradients: ClassVar[bool] = False
    """Whether `observe` must be called with gradients before `scores`."""
    needs_training: ClassVar[bool] = False
    """Whether the importance needs gradients of many training steps, not of one point."""
    of_channels: ClassVar[bool] = False
    """Whether the importance ranks channels only, not single weights."""
    of_filters: ClassVar[bool] = False
    """Whether a channel's score is that of its filter: the weights of the convolution or Linear that writes it."""
    observe_every: ClassVar[int] = 1
    """Training steps per call of `observe` in a gradual schedule."""
    recovers: ClassVar[bool] = False
    """Whether single weights that were cut go on being scored, and come back if others become less important."""

    def observe(self, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:  # noqa: B027 - optional
        """Observe the weights and gradients of a training step, by parameter name.

        Weights that are cut have the values that they had before, if the importance `recovers`, and otherwise 0.
        """

    @abstractmethod
    def scores(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scores of the weights, in their shapes; the input of `channels`."""

    def channels(self, layer: nn.Module, scores: Tensor) -> Tensor | None:
        """Scores of the channels of one layer.

        Args:
            layer: a convolution, a Linear, a BatchNorm or a LayerNorm.
            scores: of the weights of each channel, (channels, weights per channel).

        Returns:
            (channels,), or None if the importance ignores such layers.
        """
        return scores.abs().sum(dim=1)

    def state(self) -> dict[str, Any]:
        """The observations, for a checkpoint of the training."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 - optional
        """Restore the result of `state`."""


__all__ = ["Importance"]
