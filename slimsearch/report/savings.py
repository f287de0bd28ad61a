"""What a run did not have to compute: candidates ruled out beforehand, and networks that were there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from slimsearch.record.trial import COMPLETE, RULED_OUT, SEARCH, Trial
from slimsearch.report.tables import seconds_text


@dataclass(frozen=True)
class Savings:
    """Of one run.

    Attributes:
        candidates: of the search that have come to an end.
        ruled_out: how many of them were, before training.
        ruled_out_seconds: what these would have taken, each the median of those that were trained.
        reused_seconds: what the training and compression of networks took that other candidates went through before.
    """

    candidates: int
    ruled_out: int
    ruled_out_seconds: float
    reused_seconds: float

    def __str__(self) -> str:
        parts = []
        if self.ruled_out:
            share = 100 * self.ruled_out / self.candidates
            parts.append(
                f"{self.ruled_out} of {self.candidates} candidates ({share:.0f}%) were ruled out before training, "
                f"which would have taken about {_duration(self.ruled_out_seconds)}"
            )
        if self.reused_seconds:
            parts.append(f"networks that were there already saved {_duration(self.reused_seconds)}")
        return "; ".join(parts)


def savings(trials: Sequence[Trial]) -> Savings | None:
    """None where nothing was saved."""
    searched = [t for t in trials if t.kind == SEARCH and not t.unfinished]
    trained = [t.metrics["training_seconds"] for t in searched if "training_seconds" in t.metrics]
    ruled_out = sum(t.state == RULED_OUT for t in searched)
    reused = sum(t.metrics.get("seconds_saved", 0.0) for t in searched if t.state == COMPLETE)
    found = Savings(len(searched), ruled_out, ruled_out * (median(trained) if trained else 0.0), reused)
    return found if found.ruled_out or found.reused_seconds >= 1 else None


def _duration(seconds: float) -> str:
    return f"{seconds_text(seconds)} of one core"
