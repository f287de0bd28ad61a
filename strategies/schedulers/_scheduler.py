"""The scheduler interface: how many epochs each trial is trained, decided from the progress of all trials."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces import Choice, Point


@dataclass(frozen=True)
class TrialProgress:
    """A trial as a scheduler sees it; failed trials are left out.

    Attributes:
        number: of the trial; later ones have larger numbers, and there may be gaps.
        losses: after each finished epoch, from the first: one for each objective, less is better. Costs that are known
            before training are the same in all of them.
        state: "running", also where it waits for a worker that is to train it on or to try it again; "paused", to be
            trained on from its checkpoint if at all; "complete"; "stopped", ended for good before that.
        violation: by how much hard limits are broken, in total; 0: not at all.
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

    Every answer is a function of the arguments alone, so that it is the same after a kill. Whenever a trial has
    finished an epoch, the driver asks `after_epoch` and records the decision; whenever a worker is free, it asks
    `resume` and, where that gives None, `may_begin`; where neither gives it work, it asks both again after the next
    event. When nothing runs and neither gives work, the search is over, and paused trials stay so.

    `trials` are in any order; `epochs` is the number after which a trial is complete; `more` is whether the search can
    still begin new trials.
    """

    def after_epoch(self, trial: TrialProgress, trials: Sequence[TrialProgress], epochs: int) -> Decision:
        """The decision about `trial`, one of `trials`, after an epoch; CONTINUE after the last one."""

    def resume(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> int | None:
        """The number of a paused trial to train on now; None: none."""

    def may_begin(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> bool:
        """Whether a new trial can be begun now; never where there are no `more`."""


@runtime_checkable
class Exploiting(Scheduler, Protocol):
    """A scheduler that replaces a trial by a copy of a better one with other training hyper-parameters."""

    def exploit(self, trials: Sequence[TrialProgress], epochs: int, more: bool) -> tuple[int, int] | None:
        """The numbers of a paused trial to end and of the paused one to copy in its place; None: none, now."""

    def perturbed(self, choices: Iterable[Choice], point: Point, rng: np.random.Generator) -> dict[str, Any]:
        """The point of a copy: `point` with other values of `choices`."""


def check(option: str, value: Any, least: float, kind: type[int] | type[float] = int) -> None:
    """Validate the `value` of an option.

    Raises:
        SlimsearchError: it is no number of `kind`, or below `least`.
    """
    allowed, word = ((int,), "whole number") if kind is int else ((int, float), "number")
    if isinstance(value, bool) or not isinstance(value, allowed) or not value >= least:
        raise SlimsearchError(f"{option}={value} is not a {word} of at least {least:g}")
