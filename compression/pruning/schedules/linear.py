"""Linear growth of sparsity."""

from __future__ import annotations

from slimsearch.compression.pruning.schedules import Schedule


class Linear(Schedule):
    """Sparsity grows in equal steps."""

    def share(self, progress: float) -> float:
        return progress
