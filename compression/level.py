"""Unstructured pruning: single weights are set to zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimsearch.compression._network import Network
from slimsearch.compression._stage import AfterStep, Part, Training, TrainingStage
from slimsearch.compression._weights import parameters, weights
from slimsearch.compression.pruning.criterion import check, initial, make_importance, make_schedule, observe
from slimsearch.compression.pruning.gradual import Gradual
from slimsearch.compression.pruning.importances import Importance
from slimsearch.compression.pruning.schedules import Schedule
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Level(TrainingStage):
    """Set the least important weights to zero, and train the others.

    Source: Han et al. 2015, "Learning both weights and connections for efficient neural networks". The shape of the
    network stays, and with it latency and the size of the file: zeros gain where `cluster` packs them.

    Attributes:
        sparsity: share of the weights (of tensors with two dimensions or more) that become zero, in (0, 1).
        importance: which: l1, l2, taylor, movement (with a gradual schedule), snip or synflow.
        schedule: at_once, linear or agp.
        scope: "layer" for the same share of every layer, "network" for one threshold.
        epochs: length of the training; by default as long as the network was trained.
        events, ramp: number of cuts of a gradual schedule, and the share of the training over which they are spread.
        learning_rate: peak of the training's schedule; by default that of the evaluator.
    """

    sparsity: float = 0.8
    importance: str = "l1"
    schedule: str = "at_once"
    scope: str = "layer"
    epochs: int | None = None
    events: int = 10
    ramp: float = 0.5
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity {self.sparsity} is not between 0 and 1")
        check(self)
        if make_importance(self).of_channels:
            raise ValueError(f"importance {self.importance} is of channels, not of single weights")

    def begin(self, network: Network, training: Training) -> Part:
        importance, schedule = make_importance(self), make_schedule(self)
        module = initial(network, training) if importance.at_initialization else network.copy_module()
        importance.prepare(module, training.calibration)
        start = Network(module, network.structure, network.quantization)
        mask: AfterStep
        if schedule.gradual:
            mask = _GradualMask(importance, schedule, self)
        else:
            if importance.needs_gradients:
                observe(importance, module, training)
            mask = _Mask(choose(importance.scores(weights(module)), self.sparsity, self.scope == "network"))
            mask(module, 0, 1)
        return Part(start, after_step=[mask])


def choose(scores: Mapping[str, Tensor], sparsity: float, together: bool) -> dict[str, Tensor]:
    """What stays: a mask for each tensor of weights.

    Raises:
        SlimsearchError: there are no weights.
    """
    import torch

    scores = {name: score for name, score in scores.items() if score.ndim > 1}
    if not scores:
        raise SlimsearchError("this network has no weights to set to zero")
    pools = [torch.cat([s.flatten() for s in scores.values()])] if together else [s.flatten() for s in scores.values()]
    kept: list[Tensor] = []
    for pool in pools:
        mask = torch.ones_like(pool, dtype=torch.bool)
        mask[pool.argsort(stable=True)[: round(sparsity * len(pool))]] = False
        kept.append(mask)
    sizes = [score.numel() for score in scores.values()]
    parts = list(torch.split(kept[0], sizes)) if together else kept
    return {name: part.view_as(score) for (name, score), part in zip(scores.items(), parts, strict=True)}


class _Mask(AfterStep):
    """Weights that are zero after every step."""

    def __init__(self, kept: dict[str, Tensor]) -> None:
        self.kept = kept

    def __call__(self, module: nn.Module, step: int, steps: int) -> None:
        hold(module, self.kept)

    def state(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.kept = state["kept"]


class _GradualMask(Gradual):
    """Ever more of them."""

    def __init__(self, importance: Importance, schedule: Schedule, stage: Level) -> None:
        super().__init__(importance, schedule, stage.events, stage.ramp)
        self._stage = stage
        self._kept: dict[str, Tensor] = {}

    def cut(self, module: nn.Module, share: float, last: bool) -> None:
        scores = self.importance.scores(weights(module))
        scores = {n: s.masked_fill(~self._kept[n], -1.0) if n in self._kept else s for n, s in scores.items()}
        self._kept = choose(scores, self._stage.sparsity * share, self._stage.scope == "network")

    def hold(self, module: nn.Module) -> None:
        hold(module, self._kept)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "kept": self._kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._kept = state["kept"]


def hold(module: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Set to zero what is not kept."""
    import torch

    with torch.no_grad():
        for name, parameter in parameters(module).items():
            if name in kept:
                parameter.mul_(kept[name].to(parameter.device))
