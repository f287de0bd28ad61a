"""Structured pruning: whole channels are removed, through every layer that depends on them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slimsearch.compression._network import Network, dropout_rates
from slimsearch.compression._stage import Part, Training, TrainingStage
from slimsearch.compression._weights import weights
from slimsearch.compression.pruning.channels import Channels
from slimsearch.compression.pruning.criterion import check, draw_anew, initial, make_importance, make_schedule, observe
from slimsearch.compression.pruning.selection import TARGETS, THIRDS, GradualChannels, Selection

if TYPE_CHECKING:
    from torch import nn

_AFTER = ("fine-tune", "rewind", "scratch")


@dataclass(frozen=True)
class Prune(TrainingStage):
    """Remove the least important channels, then train what is left.

    Source: filter pruning (Li et al. 2017), with the layers that must be cut together found by DepGraph (Fang et al.
    2023; torch-pruning): one score for a group of coupled channels.

    Attributes:
        sparsity: share of the channels of each layer that is removed, in (0, 1), 0.3 unless another target is given;
            the logits' layer stays whole.
        early, middle, late: or: that share in the first, the second and the last third of the layers, each in [0, 1),
            those that are not given 0.
        params: or: so many parameters at most are left.
        macs: or: so many multiply-accumulates an image.
        latency_ms: or: the file, exported in float32 and measured, takes no longer.
        importance: what to cut: a name of `slimsearch.compression.pruning.importances`, or a class of your own.
        schedule: at_once; or linear or agp, which cut while the network trains, and remove at the end.
        scope: "layer" cuts the same share of every layer, "network" ranks the channels of all layers against each
            other, for a target in params by their importance for each parameter.
        after: "fine-tune" the weights that are left, "rewind" them to those that their training began with
            (Frankle and Carbin 2019), or train the structure from "scratch" with new ones (Liu et al. 2019).
        epochs: length of that training; by default as long as the network was trained.
        events, ramp: number of cuts of a gradual schedule, and the share of the training over which they are spread.
        round_to: layers of at least four times as many channels get a width that is a multiple of it, since runtimes
            work on blocks of channels (22 of 32 channels ran slower than all 32); 1 leaves widths as they come.
        dropout: share of the network's dropout rates that the pruned one keeps, in [0, 1]. None by default: less
            capacity needs less of it (Han et al. 2015), and a short fine-tuning did best without.
        learning_rate: peak of the training's schedule; by default that of the evaluator.
    """

    sparsity: float | None = None
    early: float | None = None
    middle: float | None = None
    late: float | None = None
    params: float | None = None
    macs: float | None = None
    latency_ms: float | None = None
    importance: str = "l1"
    schedule: str = "at_once"
    scope: str = "layer"
    after: str = "fine-tune"
    epochs: int | None = None
    events: int = 10
    ramp: float = 0.5
    round_to: int = 8
    dropout: float = 0.0
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        thirds = [getattr(self, name) for name in THIRDS if getattr(self, name) is not None]
        targets = [name for name in TARGETS if getattr(self, name) is not None]
        if thirds:
            targets.append("early, middle or late")
            if self.scope != "layer":
                raise ValueError(f"scope {self.scope} ranks all layers against each other: give a sparsity")
            if not all(0 <= share < 1 for share in thirds) or not any(thirds):
                raise ValueError("early, middle and late are shares from 0 on and below 1, not all of them 0")
        if len(targets) > 1:
            raise ValueError(f"{' and '.join(targets)} are given; one target is enough")
        if self.sparsity is not None and not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity {self.sparsity} is not between 0 and 1")
        for name in TARGETS[1:]:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} {value} is not above 0")
        if self.after not in _AFTER:
            raise ValueError(f"after '{self.after}' is none of {', '.join(_AFTER)}")
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout {self.dropout} is not between 0 and 1")
        if self.round_to < 1:
            raise ValueError(f"round_to {self.round_to} is less than 1")
        check(self)
        if make_schedule(self).gradual and self.after != "fine-tune":
            raise ValueError(f"schedule {self.schedule} cuts while the trained weights go on being trained")

    def begin(self, network: Network, training: Training) -> Part:
        importance, schedule = make_importance(self), make_schedule(self)
        images = training.calibration
        starts_anew = importance.at_initialization or self.after == "rewind"
        first = initial(network, training) if starts_anew else None
        scored = first if first is not None and importance.at_initialization else network.module
        selection = Selection(self, Channels(scored, images, self.round_to), importance, network, training)
        importance.prepare(scored, images)
        if schedule.gradual:
            module = network.copy_module()
            _scale_dropout(module, self.dropout)
            gradual = GradualChannels(selection, schedule)
            structure = {**network.structure, "dropout": dropout_rates(module)}
            return Part(Network(module, structure, network.quantization), after_step=[gradual], finish=gradual.finish)
        if importance.needs_gradients:
            observe(importance, scored, training)
        cuts = selection.final(importance.scores(weights(scored)))
        module = copy.deepcopy(first) if first is not None else network.copy_module()
        if self.after == "scratch":
            draw_anew(module, training.seed)
        _scale_dropout(module, self.dropout)
        return Part(selection.remove(Network(module, network.structure, network.quantization), cuts))


def _scale_dropout(module: nn.Module, factor: float) -> None:
    for name, rate in dropout_rates(module).items():
        setattr(module.get_submodule(name), "p", rate * factor)  # noqa: B010 - torch types every attribute as a tensor
