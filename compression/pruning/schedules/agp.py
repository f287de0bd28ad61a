"""Automated gradual pruning."""

from __future__ import annotations

from slimsearch.compression.pruning.schedules import Schedule


class Agp(Schedule):
    """Sparsity grows fast at first, then ever slower: 1 - (1 - progress)^3.

    Source: Zhu and Gupta 2017, "To prune, or not to prune", eq. 1 with an initial sparsity of 0.
    """

    def share(self, progress: float) -> float:
        return 1 - (1 - progress) ** 3
