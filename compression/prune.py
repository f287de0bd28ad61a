"""Structured pruning: removal of whole channels from all layers that depend on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slimsearch.compression._network import Network, dropout_rates
from slimsearch.compression._stage import Part, Training, plain, require
from slimsearch.compression._weights import weights
from slimsearch.compression.pruning.channels import Channels
from slimsearch.compression.pruning.heads import replaced_attention, with_plain_attention
from slimsearch.compression.pruning.pruning_stage import PruningStage, observe
from slimsearch.compression.pruning.selection import TARGETS, THIRDS, GradualChannels, Selection
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from torch import nn

_AFTER = ("fine-tune", "rewind", "scratch")


@dataclass(frozen=True)
class Prune(PruningStage):
    """Remove the least important channels, then train the remaining network.

    Source: filter pruning (Li et al. 2017), with coupled layers found by DepGraph (Fang et al. 2023; torch-pruning):
    one score per group of coupled channels.

    Attributes:
        sparsity: share of each layer's channels to remove, in (0, 1), 0.3 without another target; the layer of the
            logits stays unchanged.
        early, middle, late: target: that share for the first, second and last third of the layers, each in [0, 1), 0
            by default.
        params: target: maximum number of parameters.
        macs: target: maximum number of multiply-accumulates per image.
        latency_ms: target: maximum measured latency of the float32 file.
        importance: criterion of the cut: a name in `slimsearch.compression.pruning.importances`, or your own class.
        schedule: at_once; or linear or agp, which zero channels during the training, and remove them with the last cut.
        scope: "layer" cuts the same share of every layer; "network" ranks the channels of all layers together, with a
            target in params by importance per parameter.
        events, ramp: number of cuts of a gradual schedule, and the share of the training over which they are spread.
        after: "fine-tune" the remaining weights, "rewind" them to their initial values (Frankle and Carbin 2019), or
            train the structure from "scratch" with new ones (Liu et al. 2019).
        round_to: layers with at least four times as many channels get a width that is a multiple of it, since runtimes
            process blocks of channels (22 of 32 channels ran slower than all 32); 1 for any width.
        dropout: factor on the dropout rates, in [0, 1]. 0 by default: less capacity needs less dropout (Han et al.
            2015), and short fine-tunings gave the best accuracy without.
        epochs: length of the training; by default that of the network's training.
        learning_rate: peak of the training's schedule; by default that of the evaluator.

    Raises:
        SlimsearchError: an option has a wrong value, or two options exclude each other.
    """

    importance: str = "group_l1"
    sparsity: float | None = None
    early: float | None = None
    middle: float | None = None
    late: float | None = None
    params: float | None = None
    macs: float | None = None
    latency_ms: float | None = None
    after: str = "fine-tune"
    round_to: int = 8
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        thirds = [getattr(self, name) for name in THIRDS if getattr(self, name) is not None]
        targets = [name for name in TARGETS if getattr(self, name) is not None]
        if thirds:
            targets.append("early, middle or late")
            require(self.scope == "layer", f"scope {self.scope} ranks all layers against each other: give a sparsity")
            valid = all(0 <= share < 1 for share in thirds) and any(thirds)
            require(valid, "early, middle and late are shares from 0 on and below 1, not all of them 0")
        require(len(targets) <= 1, f"{' and '.join(targets)} are given; one target is enough")
        require(self.sparsity is None or 0 < self.sparsity < 1, f"sparsity {self.sparsity} is not between 0 and 1")
        for name in TARGETS[1:]:
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} {value} is not above 0")
        require(self.after in _AFTER, f"after '{self.after}' is none of {', '.join(_AFTER)}")
        require(0 <= self.dropout <= 1, f"dropout {self.dropout} is not between 0 and 1")
        require(self.round_to >= 1, f"round_to {self.round_to} is less than 1")
        require(
            self.after == "fine-tune" or not self.new_schedule().gradual,
            f"schedule {self.schedule} cuts while the trained weights go on being trained",
        )

    def begin(self, network: Network, training: Training) -> Part:
        importance = self.new_importance()
        initial = _initial(network, training) if self.after == "rewind" else None
        network = with_plain_attention(network, training.calibration)
        channels = Channels(network.module, training.calibration, self.round_to)
        selection = Selection(self, channels, importance, network, training)
        if self.new_schedule().gradual:
            module = network.copy_module()
            _scale_dropout(module, self.dropout)
            gradual = GradualChannels(selection)
            structure = {**network.structure, "dropout": dropout_rates(module)}
            return Part(Network(module, structure, network.quantization), after_step=[gradual], finish=gradual.finish)
        if importance.needs_gradients:
            observe(importance, network.module, training)
        cuts = selection.final(importance.scores(weights(network.module)))
        module = network.copy_module() if initial is None else replaced_attention(initial, network.structure)
        if self.after == "scratch":
            _reinitialize(module, training.seed)
        _scale_dropout(module, self.dropout)
        return Part(selection.remove(Network(module, network.structure, network.quantization), cuts))


def _initial(network: Network, training: Training) -> nn.Module:
    """The module with its initial weights.

    Raises:
        SlimsearchError: they are unknown, or do not fit the network's shapes.
    """
    if "widths" in network.structure or "replaced" in network.structure:
        raise SlimsearchError("only a network that nothing was cut from can go back to its initial weights")
    return plain(Network(training.initial()), training).copy_module().eval()


def _reinitialize(module: nn.Module, seed: int) -> None:
    """Initialize the weights of all layers again, in place."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in module.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()


def _scale_dropout(module: nn.Module, factor: float) -> None:
    for name, rate in dropout_rates(module).items():
        setattr(module.get_submodule(name), "p", rate * factor)  # noqa: B010 - torch types every attribute as a tensor
