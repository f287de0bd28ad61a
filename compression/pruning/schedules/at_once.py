"""One cut."""

from __future__ import annotations

from typing import ClassVar

from slimsearch.compression.pruning.schedules import Schedule


class AtOnce(Schedule):
    """Everything is cut before the training that follows."""

    gradual: ClassVar[bool] = False

    def share(self, progress: float) -> float:
        return 1.0
