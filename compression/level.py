"""Unstructured pruning: single weights are set to zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimsearch.compression._network import Network
from slimsearch.compression._stage import AfterStep, Part, Training, require
from slimsearch.compression._weights import parameters, weights
from slimsearch.compression.pruning.importances import Importance
from slimsearch.compression.pruning.pruning_stage import GradualCut, PruningStage, observe
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Level(PruningStage):
    """Set the least important weights to zero, and train the others.

    Source: Han et al. 2015, "Learning both weights and connections for efficient neural networks". Latency and the size
    of the file stay the same, since shapes do; zeros only reduce the packed size after `cluster`.

    Attributes:
        sparsity: share of the weights (of tensors with two or more dimensions) that become zero, in (0, 1).
        importance: criterion of the cut: l1, l2, taylor, movement with a gradual schedule, or your own class.
        schedule: at_once, linear or agp.
        scope: "layer" for the same share of every layer, "network" for one threshold.
        events, ramp: number of cuts of a gradual schedule, and the share of the training over which they are spread;
            with movement there is one after each step.
        epochs: length of the training; by default that of the network's training.
        learning_rate: peak of the training's schedule; by default that of the evaluator.

    Raises:
        SlimsearchError: an option has a wrong value.
    """

    sparsity: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.sparsity < 1, f"sparsity {self.sparsity} is not between 0 and 1")
        ranks_weights = not self.new_importance().of_channels
        require(ranks_weights, f"importance {self.importance} is of channels, not of single weights")

    def begin(self, network: Network, training: Training) -> Part:
        importance, module = self.new_importance(), network.copy_module()
        mask: AfterStep
        if self.new_schedule().gradual:
            mask = _GradualMask(self, importance)
        else:
            if importance.needs_gradients:
                observe(importance, module, training)
            mask = _Mask(_remaining(importance.scores(weights(module)), self.sparsity, self.scope == "network"))
            mask(module, 0, 1)
        return Part(Network(module, network.structure, network.quantization), after_step=[mask])


def _remaining(scores: Mapping[str, Tensor], sparsity: float, together: bool) -> dict[str, Tensor]:
    """Masks of the remaining weights by tensor name.

    Raises:
        SlimsearchError: there are no weights.
    """
    import torch

    scores = {name: score for name, score in scores.items() if score.ndim > 1}
    if not scores:
        raise SlimsearchError("this network has no weights to set to zero")
    pools = [torch.cat([s.flatten() for s in scores.values()])] if together else [s.flatten() for s in scores.values()]
    masks: list[Tensor] = []
    for pool in pools:
        mask = torch.ones_like(pool, dtype=torch.bool)
        mask[pool.topk(round(sparsity * len(pool)), largest=False, sorted=False).indices] = False
        masks.append(mask)
    sizes = [score.numel() for score in scores.values()]
    masks = list(torch.split(masks[0], sizes)) if together else masks
    return {name: mask.view_as(score) for (name, score), mask in zip(scores.items(), masks, strict=True)}


class _Mask(AfterStep):
    """Sets the same weights to zero after every step."""

    def __init__(self, mask: dict[str, Tensor]) -> None:
        self._mask = mask

    def __call__(self, module: nn.Module, step: int, steps: int) -> None:
        _apply_mask(module, self._mask)

    def state(self) -> dict[str, Any]:
        return {"kept": self._mask}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._mask = state["kept"]


class _GradualMask(GradualCut):
    """Sets more weights to zero at each event."""

    def __init__(self, stage: Level, importance: Importance) -> None:
        # Between distant cuts, scores of a network that lacks a few weights would bring all of them back at once.
        super().__init__(stage, importance, every_step=importance.recovers)
        self._stage = stage
        self._mask: dict[str, Tensor] = {}
        self._values: dict[str, Tensor] = {}  # of weights before they were cut, if they can come back

    def cut(self, module: nn.Module, share: float, last: bool) -> None:
        known = weights(module)
        scores = self.importance.scores(known)
        if self.importance.recovers:
            self._values = {name: value.clone() for name, value in self.before_cuts(known).items()}
        else:
            scores = {n: s.masked_fill(~self._mask[n], -1.0) if n in self._mask else s for n, s in scores.items()}
        self._mask = _remaining(scores, self._stage.sparsity * share, self._stage.scope == "network")
        for name, value in self._values.items():
            known[name].copy_(value)

    def before_cuts(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: weight.where(self._mask[name].to(weight.device), self._values[name].to(weight.device))
            if name in self._mask and name in self._values else weight
            for name, weight in weights.items()
        }  # fmt: skip

    def hold(self, module: nn.Module) -> None:
        _apply_mask(module, self._mask)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "kept": self._mask, "values": self._values}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._mask, self._values = state["kept"], state["values"]


def _apply_mask(module: nn.Module, mask: Mapping[str, Tensor]) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in parameters(module).items():
            if name in mask:
                parameter.mul_(mask[name].to(parameter.device))
