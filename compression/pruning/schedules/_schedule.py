"""The interface of a pruning schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar


class Schedule(ABC):
    """The way from no sparsity to all of it."""

    gradual: ClassVar[bool] = True
    """Cuts while the network trains; otherwise before."""

    @abstractmethod
    def share(self, progress: float) -> float:
        """Share of the final sparsity, in [0, 1], at `progress` in [0, 1] of the pruning; 1 at 1."""
