"""One cut before the training."""

from __future__ import annotations

from typing import ClassVar

from slimsearch.compression.pruning.schedules import Schedule


class AtOnce(Schedule):
    """A single cut before the training."""

    gradual: ClassVar[bool] = False

    def share(self, progress: float) -> float:
        return 1.0
