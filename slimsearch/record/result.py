"""What comes back from a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimsearch.record.trial import Trial


@dataclass(frozen=True)
class Result:
    """What a run found.

    Attributes:
        directory: of the run; artifacts are relative to it.
        trials: everything that was tried, by number.
        models: the content of ``top_models.json``, the front first.
    """

    directory: Path
    trials: tuple[Trial, ...]
    models: tuple[dict[str, Any], ...]

    def top_models(self, count: int) -> list[dict[str, Any]]:
        """The first `count` models: dicts with ``architecture``, ``recipe``, ``metrics`` and ``artifact``."""
        return [dict(model) for model in self.models[:count]]
