"""Cutting while a network trains: what linear and automated gradual pruning have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from slimsearch.compression._stage import AfterStep
from slimsearch.compression._weights import gradients, weights
from slimsearch.compression.pruning.importances import Importance
from slimsearch.compression.pruning.schedules import Schedule

if TYPE_CHECKING:
    from torch import nn


class Gradual(AfterStep):
    """Observes gradients, cuts a little more at a time, and keeps at zero what was cut.

    Args:
        importance: what to cut.
        schedule: how much by when.
        events: number of cuts.
        ramp: share of the training after which nothing more is cut.
    """

    def __init__(self, importance: Importance, schedule: Schedule, events: int, ramp: float) -> None:
        self.importance = importance
        self._schedule = schedule
        self._events = events
        self._ramp = ramp

    @final
    def __call__(self, module: nn.Module, step: int, steps: int) -> None:
        end = min(steps, max(self._events, math.floor(self._ramp * steps)))
        events = min(self._events, end)
        done = step + 1
        if done <= end:
            if self.importance.needs_gradients:
                self.importance.observe(weights(module), gradients(module))
            # Event k of n is after the share k / n of the ramp.
            before, now = (math.floor(d * events / end) for d in (step, done))
            if now > before:
                self.cut(module, self._schedule.share(now / events), last=now == events)
        self.hold(module)

    @abstractmethod
    def cut(self, module: nn.Module, share: float, last: bool) -> None:
        """Choose what goes, so that `share` of the final sparsity is reached."""

    @abstractmethod
    def hold(self, module: nn.Module) -> None:
        """Set to zero what has been chosen."""

    def state(self) -> dict[str, Any]:
        return {"importance": self.importance.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.importance.restore(state["importance"])
