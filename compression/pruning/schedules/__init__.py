"""Pruning schedules: the share of the final sparsity at each point of the training; one schedule per file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar


class Schedule(ABC):
    """The growth of sparsity from 0 to its final value."""

    gradual: ClassVar[bool] = True
    """Whether the cuts happen during the training, not before."""

    @abstractmethod
    def share(self, progress: float) -> float:
        """Share of the final sparsity, in [0, 1], at `progress` in [0, 1] of the pruning; 1 at 1."""


__all__ = ["Schedule"]
