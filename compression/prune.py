"""Structured pruning: whole channels are removed, through every layer that depends on them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compression._channels import Channels, Cut, silence
from compression._gradual import Gradual
from compression._network import Network, dropout_rates, widths
from compression._stage import Part, Training, TrainingStage
from compression._weights import gradients, weights
from compression.importances import Importance
from compression.schedules import Schedule
from slimsearch_errors import SlimsearchError
from slimsearch_names import load_class

if TYPE_CHECKING:
    from torch import Tensor, nn

_TARGETS = ("sparsity", "params", "macs", "latency_ms")
_SCOPES = ("layer", "network")
_AFTER = ("fine-tune", "rewind", "scratch")
_DEFAULT_SPARSITY = 0.3
_SEARCH_STEPS = 14  # of the bisection for a target: to within 1 in 16,000 of the ratio


@dataclass(frozen=True)
class Prune(TrainingStage):
    """Remove the least important channels, then train what is left.

    Source: filter pruning (Li et al. 2017), with the layers that must be cut together found by DepGraph (Fang et al.
    2023; torch-pruning): one score for a group of coupled channels.

    Attributes:
        sparsity: share of the channels of each layer that is removed, in (0, 1), 0.3 unless another target is given;
            the logits' layer stays whole.
        params: or: so many parameters at most are left.
        macs: or: so many multiply-accumulates an image.
        latency_ms: or: the file, exported in float32 and measured, takes no longer.
        importance: what to cut: a name of `compression.importances`, or a class of your own.
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
        targets = [name for name in _TARGETS if getattr(self, name) is not None]
        if len(targets) > 1:
            raise ValueError(f"{' and '.join(targets)} are given; one target is enough")
        if self.sparsity is not None and not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity {self.sparsity} is not between 0 and 1")
        for name in _TARGETS[1:]:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} {value} is not above 0")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"epochs {self.epochs} is less than 1")
        if self.scope not in _SCOPES:
            raise ValueError(f"scope '{self.scope}' is none of {', '.join(_SCOPES)}")
        if self.after not in _AFTER:
            raise ValueError(f"after '{self.after}' is none of {', '.join(_AFTER)}")
        if self.events < 1:
            raise ValueError(f"events {self.events} is less than 1")
        if not 0 < self.ramp <= 1:
            raise ValueError(f"ramp {self.ramp} is not in (0, 1]")
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout {self.dropout} is not between 0 and 1")
        if self.round_to < 1:
            raise ValueError(f"round_to {self.round_to} is less than 1")
        importance, schedule = self._importance(), self._schedule()
        if importance.needs_training and not schedule.gradual:
            raise ValueError(f"importance {self.importance} must see weights move: choose schedule linear or agp")
        if schedule.gradual and (importance.at_initialization or self.after != "fine-tune"):
            raise ValueError(f"schedule {self.schedule} cuts while the trained weights go on being trained")

    def _importance(self) -> Importance:
        made: Importance = load_class("importance", self.importance, "compression.importances")()
        return made

    def _schedule(self) -> Schedule:
        made: Schedule = load_class("schedule", self.schedule, "compression.schedules")()
        return made

    def begin(self, network: Network, training: Training) -> Part:
        importance, schedule = self._importance(), self._schedule()
        images = training.calibration
        starts_anew = importance.at_initialization or self.after == "rewind"
        initial = _initial(network, training) if starts_anew else None
        scored = initial if initial is not None and importance.at_initialization else network.module
        selection = _Selection(self, Channels(scored, images, self.round_to), importance, network, training)
        if schedule.gradual:
            module = network.copy_module()
            _scale_dropout(module, self.dropout)
            importance.prepare(module, images)
            gradual = _GradualChannels(selection, schedule)
            structure = {**network.structure, "dropout": dropout_rates(module)}
            return Part(Network(module, structure, network.quantization), after_step=[gradual], finish=gradual.finish)
        if importance.needs_gradients:
            _observe(importance, scored, training)
        importance.prepare(scored, images)
        cuts = selection.final(importance.scores(weights(scored)))
        module = copy.deepcopy(initial) if initial is not None else network.copy_module()
        if self.after == "scratch":
            _reset(module, training.seed)
        _scale_dropout(module, self.dropout)
        return Part(selection.remove(Network(module, network.structure, network.quantization), cuts))


class _Selection:
    """What `Prune` cuts from a network, by the options of the stage."""

    def __init__(
        self, stage: Prune, channels: Channels, importance: Importance, network: Network, training: Training
    ) -> None:
        self.stage, self.channels, self.importance = stage, channels, importance
        self._network, self._training = network, training
        self.ratio = stage.sparsity or _DEFAULT_SPARSITY

    def choose(self, scores: Mapping[str, Tensor], ratio: float) -> list[Cut]:
        stage = self.stage
        together = stage.scope == "network"
        return self.channels.choose(
            self.importance, scores, ratio, together=together, by_cost=together and stage.params is not None
        )

    def final(self, scores: Mapping[str, Tensor]) -> list[Cut]:
        """The cuts that reach the target.

        Raises:
            SlimsearchError: it cannot be reached.
        """
        cuts = self._reaching(scores)
        try:
            self._without(cuts)
        except SlimsearchError:
            self.channels.exclude_what_breaks()
            cuts = self._reaching(scores)
        if not cuts:
            raise SlimsearchError(f"no layer has a channel to spare at sparsity {self.ratio:g}")
        return cuts

    def _reaching(self, scores: Mapping[str, Tensor]) -> list[Cut]:
        name = next((n for n in _TARGETS[1:] if getattr(self.stage, n) is not None), None)
        if name is None:
            return self.choose(scores, self.ratio)
        target = float(getattr(self.stage, name))
        cost: Callable[[Network], float] = {
            "params": lambda network: network.params,
            "macs": lambda network: network.macs(self._training.calibration[:1]),
            "latency_ms": self._training.latency_ms,
        }[name]
        if cost(self._network) <= target:
            raise SlimsearchError(f"the network has no more than {target:g} {name} as it is: nothing to prune")
        low, high, found = 0.0, 1.0, None
        for _ in range(_SEARCH_STEPS if name != "latency_ms" else _SEARCH_STEPS // 2):
            self.ratio = (low + high) / 2
            cuts = self.choose(scores, self.ratio)
            try:
                reached = cost(self._without(cuts))
            except SlimsearchError:
                if found is None:
                    self.channels.exclude_what_breaks()
                    continue
                raise
            if reached <= target:
                high, found = self.ratio, cuts
            else:
                low = self.ratio
        if found is None:
            raise SlimsearchError(f"pruning cannot reach {name} {target:g}: the narrowest network has {reached:g}")
        self.ratio = high
        return found

    def _without(self, cuts: list[Cut]) -> Network:
        module = self._network.copy_module()
        self.channels.cut(module, cuts)
        return Network(module)

    def remove(self, network: Network, cuts: list[Cut]) -> Network:
        """`network` without what is cut."""
        module = network.copy_module()
        removed = self.channels.cut(module, cuts)
        plan = network.quantization
        for layer, gone in removed.items():
            plan = plan.without_channels(layer, gone) if plan is not None else None
        structure = {**network.structure, "widths": widths(module), "dropout": dropout_rates(module)}
        return Network(module, structure, plan)


class _GradualChannels(Gradual):
    """Channels that are silenced during the training and removed after it."""

    def __init__(self, selection: _Selection, schedule: Schedule) -> None:
        super().__init__(selection.importance, schedule, selection.stage.events, selection.stage.ramp)
        self._selection = selection
        self._cuts: list[Cut] = []
        self._apply: Callable[[], None] | None = None
        self._ratio: float | None = None

    def cut(self, module: nn.Module, share: float, last: bool) -> None:
        scores = self._kept_down(self.importance.scores(weights(module)))
        if self._ratio is None:
            self._selection.final(scores)  # finds the ratio that the target needs
            self._ratio = self._selection.ratio
        self._cuts = self._selection.final(scores) if last else self._selection.choose(scores, self._ratio * share)
        self._apply = None

    def _kept_down(self, scores: dict[str, Tensor]) -> dict[str, Tensor]:
        """What was cut stays cut: it scores nothing."""
        scores = {name: score.clone() for name, score in scores.items()}
        for one in self._cuts:
            for layer, channels in one.silenced.items():
                for label in ("weight", "bias"):
                    if (score := scores.get(f"{layer}.{label}")) is not None and score.shape[0] > max(channels):
                        score[list(channels)] = 0
        return scores

    def hold(self, module: nn.Module) -> None:
        if not self._cuts:
            return
        if self._apply is None:
            self._apply = silence(module, self._cuts)
        self._apply()

    def finish(self, network: Network) -> Network:
        return self._selection.remove(network, self._cuts)

    def state(self) -> dict[str, Any]:
        cuts = [[c.layer, c.output, list(c.channels), {k: list(v) for k, v in c.silenced.items()}] for c in self._cuts]
        return {**super().state(), "cuts": cuts, "ratio": self._ratio}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._ratio = state["ratio"]
        self._cuts = [
            Cut(layer, output, tuple(channels), {k: tuple(v) for k, v in silenced.items()})
            for layer, output, channels, silenced in state["cuts"]
        ]


def _initial(network: Network, training: Training) -> nn.Module:
    if "widths" in network.structure or "replaced" in network.structure:
        raise SlimsearchError("only a network that nothing was cut from can go back to its initial weights")
    return training.initial().eval()


def _observe(importance: Importance, module: nn.Module, training: Training) -> None:
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


def _reset(module: nn.Module, seed: int) -> None:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in module.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()


def _scale_dropout(module: nn.Module, factor: float) -> None:
    for name, rate in dropout_rates(module).items():
        setattr(module.get_submodule(name), "p", rate * factor)  # noqa: B010 - torch types every attribute as a tensor
