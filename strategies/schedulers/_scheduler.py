"""The scheduler interface: decides from the progress of all trials how many epochs each is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces import Choice, Point


@dataclass(frozen=True)
class TrialProgress:
    """The progress of a trial that has not failed.

    Attributes:
        number: of the trial; later ones have larger numbers, and there may be gaps.
        losses: after each finished epoch, one loss per objective; less is better. Costs that are known before training
            are the same after every epoch.
        state: "running", or waiting for a worker that continues or retries it; "paused", may continue from its
            checkpoint; "complete"; "stopped" early.
        violation: total violation of hard limits, each relative to its limit; 0 for none.
    """

    number: int
    losses: tuple[tuple[float, ...], ...]
    state: Literal["running", "paused", "complete", "stopped"]
    violation: float = 0.0

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.losses)


class Decision(Enum):
    """The decision about a trial that has finished an epoch."""

    CONTINUE = "continue"
    PAUSE = "pause"
    STOP = "stop"


class Scheduler(Protocol):
    """Decides how long trials are trained.

    Every answer is a function of the arguments alone, so that a resumed run gets the same one. When a trial has
    finished an epoch, the driver calls `after_epoch` and records the decision. When a worker is free, it calls
    `resume` and, if that returns None, `may_begin`; if neither gives work, it calls both again after the next event.
    When nothing runs and neither gives work, the search ends, and paused trials stay paused.

    `trials` are in any order; `epochs` is the number after which a trial is complete; `more` is whether the search can
    still begin new trials.
    """

    def after_epoch(self, trial: TrialProgress, trials: Sequence[TrialProgress], epochs: int) -> Decision:
        """The decision about `trial`, one of `trials`, after an epoch; CONTINUE after the last one."""

    def resume(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> int | None:
        """The number of a paused trial to continue now, or None."""

    def may_begin(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> bool:
        """Whether a new trial can begin now; False without `more`."""


@runtime_checkable
class Exploiting(Scheduler, Protocol):
    """A scheduler that replaces a trial by a copy of a better one with other training hyper-parameters."""

    def exploit(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> tuple[int, int] | None:
        """The numbers of a paused trial to stop and of the paused trial whose copy replaces it; None for none now."""

    def perturbed(self, choices: Iterable[Choice], point: Point, rng: np.random.Generator) -> dict[str, Any]:
        """The point of a copy: `point` with other values of `choices`."""


def without_nan(losses: object) -> NDArray[np.float64]:
    """Losses as an array in which NaN counts as infinite."""
    values = np.array(losses, dtype=float)
    values[np.isnan(values)] = np.inf
    return values


def check(option: str, value: Any, least: float, kind: type[int] | type[float] = int) -> None:
    """Validate the `value` of an option.

    Raises:
        SlimsearchError: it is not a number of `kind`, or is below `least`.
    """
    allowed, word = ((int,), "whole number") if kind is int else ((int, float), "number")
    if isinstance(value, bool) or not isinstance(value, allowed) or not value >= least:
        raise SlimsearchError(f"{option}={value} is not a {word} of at least {least:g}")
