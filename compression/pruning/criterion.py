"""What all pruning has in common: a criterion and a schedule by name, and what a criterion looks at."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Protocol

from slimsearch.compression._network import Network
from slimsearch.compression._stage import Training
from slimsearch.compression._weights import gradients, weights
from slimsearch.compression.pruning.importances import Importance
from slimsearch.compression.pruning.schedules import Schedule
from slimsearch.errors import SlimsearchError
from slimsearch.names import load_class

if TYPE_CHECKING:
    from torch import nn

_SCOPES = ("layer", "network")


class Pruning(Protocol):
    """The options that pruning of channels and of single weights share."""

    @property
    def importance(self) -> str:
        """A name of `slimsearch.compression.pruning.importances`, or a class."""

    @property
    def schedule(self) -> str:
        """A name of `slimsearch.compression.pruning.schedules`, or a class."""

    @property
    def scope(self) -> str:
        """Within which things are ranked: "layer" or "network"."""

    @property
    def epochs(self) -> int | None:
        """Length of the training."""

    @property
    def events(self) -> int:
        """Number of cuts of a gradual schedule."""

    @property
    def ramp(self) -> float:
        """Share of the training over which they are spread."""


def check(stage: Pruning) -> None:
    """Refuse what cannot be meant.

    Raises:
        ValueError: with the value.
        SlimsearchError: an unknown name.
    """
    if stage.epochs is not None and stage.epochs < 1:
        raise ValueError(f"epochs {stage.epochs} is less than 1")
    if stage.scope not in _SCOPES:
        raise ValueError(f"scope '{stage.scope}' is none of {', '.join(_SCOPES)}")
    if stage.events < 1:
        raise ValueError(f"events {stage.events} is less than 1")
    if not 0 < stage.ramp <= 1:
        raise ValueError(f"ramp {stage.ramp} is not in (0, 1]")
    importance, schedule = make_importance(stage), make_schedule(stage)
    if importance.needs_training and not schedule.gradual:
        raise ValueError(f"importance {stage.importance} must see weights move: choose schedule linear or agp")
    if schedule.gradual and importance.at_initialization:
        raise ValueError(f"schedule {stage.schedule} cuts while the trained weights go on being trained")


def make_importance(stage: Pruning) -> Importance:
    """A new one: it remembers what it observes."""
    made: Importance = load_class("importance", stage.importance, "slimsearch.compression.pruning.importances")()
    return made


def make_schedule(stage: Pruning) -> Schedule:
    """The schedule by its name."""
    made: Schedule = load_class("schedule", stage.schedule, "slimsearch.compression.pruning.schedules")()
    return made


def initial(network: Network, training: Training) -> nn.Module:
    """The module with the weights that its training began with.

    Raises:
        SlimsearchError: they are not known, or do not fit what is left of the network.
    """
    if "widths" in network.structure or "replaced" in network.structure:
        raise SlimsearchError("only a network that nothing was cut from can go back to its initial weights")
    return training.initial().eval()


def observe(importance: Importance, module: nn.Module, training: Training) -> None:
    """Gradients of the loss on training images, in a few batches."""
    import torch
    import torch.nn.functional as F

    module = copy.deepcopy(module).eval()
    images, labels = training.examples
    for start in range(0, len(images), 64):
        module.zero_grad()
        loss = F.cross_entropy(module(images[start : start + 64]), labels[start : start + 64])
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            importance.observe(weights(module), gradients(module))


def draw_anew(module: nn.Module, seed: int) -> None:
    """New weights in every layer, in place."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in module.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
