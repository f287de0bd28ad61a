"""The base of pruning stages: common options, observation of gradients, and gradual cuts during training."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from slimsearch.compression._plain_module import copy_module
from slimsearch.compression._stage import AfterStep, Training, TrainingStage, check_training, require
from slimsearch.compression._weights import gradients, weights
from slimsearch.compression.pruning.importances import Importance
from slimsearch.compression.pruning.schedules import Schedule
from slimsearch.names import load_class

if TYPE_CHECKING:
    from torch import Tensor, nn

_SCOPES = ("layer", "network")
_BATCH = 64  # examples per observation of gradients


@dataclass(frozen=True)
class PruningStage(TrainingStage):
    """A pruning stage with its common options; see `slimsearch.compression.prune.Prune`."""

    importance: str = "l1"
    schedule: str = "at_once"
    scope: str = "layer"
    events: int = 10
    ramp: float = 0.5
    epochs: int | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        check_training(self)
        require(self.scope in _SCOPES, f"scope '{self.scope}' is none of {', '.join(_SCOPES)}")
        require(self.events >= 1, f"events {self.events} is less than 1")
        require(0 < self.ramp <= 1, f"ramp {self.ramp} is not in (0, 1]")
        require(
            self.new_schedule().gradual or not self.new_importance().needs_training,
            f"importance {self.importance} must see weights move: choose schedule linear or agp",
        )

    def new_importance(self) -> Importance:
        """A new importance object, since it stores observations."""
        importance_class = load_class("importance", self.importance, "slimsearch.compression.pruning.importances")
        return importance_class()  # type: ignore[no-any-return]

    def new_schedule(self) -> Schedule:
        """A new schedule object."""
        return load_class("schedule", self.schedule, "slimsearch.compression.pruning.schedules")()  # type: ignore[no-any-return]


def observe(importance: Importance, module: nn.Module, training: Training) -> None:
    """Let an importance observe the gradients of the loss on batches of training images."""
    import torch

    module = copy_module(module).eval()
    inputs, targets = training.examples
    for start in range(0, len(inputs), _BATCH):
        module.zero_grad()
        loss = training.loss(module(inputs[start : start + _BATCH]), targets[start : start + _BATCH])
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            importance.observe(weights(module), gradients(module))


class GradualCut(AfterStep):
    """Observes gradients, cuts more at each event, and holds cut weights at zero.

    Args:
        stage: gives the options.
        importance: criterion of the cut.
        every_step: cut after every step of the ramp, in place of the stage's events.
    """

    def __init__(self, stage: PruningStage, importance: Importance, *, every_step: bool = False) -> None:
        self.importance, self._every_step = importance, every_step
        self._schedule, self._events, self._ramp = stage.new_schedule(), stage.events, stage.ramp

    @final
    def __call__(self, module: nn.Module, step: int, steps: int) -> None:
        end = min(steps, max(self._events, math.floor(self._ramp * steps)))
        events = end if self._every_step else min(self._events, end)
        done = step + 1
        if done <= end:
            if self.importance.needs_gradients and step % self.importance.observe_every == 0:
                self.importance.observe(self.before_cuts(weights(module)), gradients(module))
            # Event k of n happens after the share k / n of the ramp.
            before, now = (math.floor(d * events / end) for d in (step, done))
            if now > before:
                self.cut(module, self._schedule.share(now / events), last=now == events)
        self.hold(module)

    @abstractmethod
    def cut(self, module: nn.Module, share: float, last: bool) -> None:
        """Choose the cut that reaches `share` of the final sparsity."""

    def before_cuts(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """`weights`, with those that were cut as they were before, if they can come back."""
        return weights

    @abstractmethod
    def hold(self, module: nn.Module) -> None:
        """Set the cut weights to zero."""

    def state(self) -> dict[str, Any]:
        return {"importance": self.importance.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.importance.restore(state["importance"])
