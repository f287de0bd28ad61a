"""Training of the weights that all networks of a space share, a few of its networks a step."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.supernet.supernet import SharedWeights, Supernet, calibration_images, describe
from slimsearch.evaluators.training.freed_memory import freed_memory_kept
from slimsearch.evaluators.training.image_training import (
    OnEpoch,
    StoppedEarly,
    TrainingSettings,
    augmentation_of,
    parameter_groups,
    set_rate,
    training_batch,
    validate,
)
from slimsearch.evaluators.training.precision import autocast, suited
from slimsearch.files import atomic
from slimsearch.search_spaces import Choice, ModelSpace

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SAMPLINGS = ("sandwich", "fair", "random")

_log = logging.getLogger(__name__)

# Networks drawn before training to complete the shared weights: at most, and in a row without anything new.
_COVERING, _WITHOUT_NEWS = 256, 32
_RATE = 0.5
# Networks a step of fair sampling; choices of more values come round over several steps.
_MOST_PATHS = 12
_DRAWS = 100
# To find out what each choice does, that many networks and, for one choice, values are looked at.
_LOOKED_AT, _MOST_VALUES = 16, 64

Architecture = dict[str, Any]


@freed_memory_kept()
def train_supernet(
    space: ModelSpace,
    data: Dataset,
    settings: TrainingSettings,
    *,
    epochs: int,
    seed: int,
    sampling: str = "sandwich",
    apart: Sequence[str] = (),
    learning_rate: float | None = None,
    on_epoch: OnEpoch | None = None,
    meter: Meter | None = None,
    checkpoint: Path | None = None,
) -> Supernet:
    """Train the weights that all networks of `space` share.

    Schedule, batches and optimizer are those of `ImageTraining`. Each step draws networks, sums the gradients of
    the mean of their losses on one batch, and changes the weights once. `sampling` says which networks:

    - "random": one network, every choice drawn uniformly. Source: single path one-shot, Guo et al. 2020.
    - "fair": as many as the choice with most values has values (12 at most); each choice deals its values like a
      deck of cards that is shuffled when it is used up, so that all are used equally often. Source: FairNAS, Chu et
      al. 2021; what differs: choices need not have the same number of values.
    - "sandwich": a large network, a small one and two random ones. Source: universally slimmable networks, Yu and
      Huang 2019; what differs: "large" and "small" are so in the choices that slice shared tensors (widths, depths),
      while those that select other tensors (branches, kernels) or none (activations) are drawn, so that no branch is
      trained more than another; and there is no distillation.

    Args:
        space: whose networks are trained.
        data: its training split is learned, its validation split is scored after every epoch.
        settings: how.
        epochs: passes over the training split, each with several networks a step.
        seed: of initial weights, order, augmentation, dropout and networks.
        sampling: one of `SAMPLINGS`.
        apart: labels of choices whose values share no weights, such as activations, if the training is long enough
            for as many sets of weights.
        learning_rate: peak of the schedule; without, half of that of `settings`, which is for one network alone: on
            `lenet` and mnist5k the ranks of inherited accuracies then agree better with the trained ones.
        on_epoch: told of every epoch, with the scores of a large network; False ends the training with `StoppedEarly`.
        meter: asked between batches whether somebody measures.
        checkpoint: a file that holds the training's state after each epoch while it goes on, and from which an
            interrupted one is continued; None for none.

    Raises:
        SlimsearchError: there is no such sampling or label, a network fails, or the loss is not finite.
        StoppedEarly: `on_epoch` said so.
    """
    import torch
    import torch.nn.functional as F

    if sampling not in SAMPLINGS:
        raise SlimsearchError(f"unknown sampling '{sampling}'; known: {', '.join(SAMPLINGS)}")
    meter = meter or Meter()
    device = torch.device(settings.device)
    torch.manual_seed(seed)
    weights = SharedWeights(space, settings.device, apart)
    paths = _Paths(weights, sampling, seed)
    largest = Network(space.build(paths.largest))
    settings = replace(settings, precision=suited(settings.precision, largest, calibration_images(data)))
    order = np.random.default_rng(seed)
    train = data.train
    steps = max(1, len(train) // settings.batch_size)
    batch_size = min(settings.batch_size, len(train))
    augment = augmentation_of(settings, data)
    peak = learning_rate or settings.learning_rate * _RATE
    facts = {"sampling": sampling, "epochs": epochs, "seed": seed}
    identity = {
        **facts,
        "steps": steps,
        "apart": weights.apart,
        "settings": asdict(settings),
        "peak": peak,
        "space": describe(space),
    }
    progress = _Progress(weights, paths, order, identity, checkpoint)
    optimizer, before = progress.resume(settings.weight_decay)
    for epoch in range(before + 1, epochs + 1):
        permutation = order.permutation(len(train))
        total = torch.zeros((), device=device)
        for step in range(steps):
            chosen = np.sort(permutation[step * batch_size : (step + 1) * batch_size])
            images, labels = training_batch(data, chosen, augment, order, device)
            architectures = paths.draw()
            for architecture in architectures:
                _follow(optimizer, weights, weights.extend(architecture, seed), settings.weight_decay)
            set_rate(optimizer, peak, (epoch - 1) * steps + step, epochs * steps, settings.warm_up)
            for architecture in architectures:
                with autocast(settings.precision, settings.device):
                    logits = _run(weights, architecture, images)
                    loss = F.cross_entropy(logits.float(), labels) / len(architectures)
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
                meter.pause_if_measuring()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        train_loss = float(total) / steps
        if not math.isfinite(train_loss):
            raise SlimsearchError(
                f"the supernet's loss is {train_loss} in epoch {epoch}: lower its learning rate of {peak:g}"
            )
        if epoch < epochs:
            progress.save(optimizer, epoch)
        if on_epoch is not None:
            network = Supernet(weights).subnet(paths.largest, calibration_images(data)).to(device)
            if not on_epoch(epoch, {"train_loss": train_loss, **validate(network, data, settings, meter)}):
                raise StoppedEarly
    progress.remove()
    return Supernet(weights.on("cpu"), facts)


def _run(weights: SharedWeights, architecture: Mapping[str, Any], images: Tensor) -> Tensor:
    try:
        return weights(architecture, images)
    except Exception as error:  # a user's module may raise anything
        name, canonical = weights.space.space_class.__name__, weights.space.canonical(architecture)
        raise SlimsearchError(f"{name} {canonical} fails while it is trained: {describe_error(error)}") from error


class _Paths:
    """Which networks are trained in each step. Makes room for all of them in the shared weights."""

    def __init__(self, weights: SharedWeights, sampling: str, seed: int) -> None:
        self._weights, self._sampling = weights, sampling
        self._choices = weights.space.choices
        self._decks: dict[str, list[int]] = {choice.label: [] for choice in self._choices}
        self._rng = np.random.default_rng([seed, 0])
        points = [self._random() for _ in range(_LOOKED_AT)]
        self._sizes = _sizes(weights, points)
        self.largest = self._sized(points[0], -1)
        one_at_a_time = [variant for choice in self._choices for variant in _variants(weights, points, choice)]
        for point in [*points, *one_at_a_time]:
            weights.extend(self._sized(point, -1), seed)
        # Combinations of choices have tensors of their own too: until many in a row have brought nothing new.
        without_news = drawn = 0
        while without_news < _WITHOUT_NEWS and drawn < _COVERING:
            news = weights.extend(self._sized(self._random(), -1), seed)
            without_news, drawn = 0 if news else without_news + 1, drawn + 1
        self._rng = np.random.default_rng([seed, 1])

    def draw(self) -> list[Architecture]:
        """The networks of one step."""
        if self._sampling == "random":
            return [self._random()]
        if self._sampling == "fair":
            most = max(len(choice.values) for choice in self._choices)
            return [self._dealt() for _ in range(min(most, _MOST_PATHS))]
        frame = self._random()
        return [self._sized(frame, -1), self._sized(frame, 0), self._random(), self._random()]

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        # NNI's labels are a class of their own, which a file that is read without pickle cannot hold.
        decks = {str(label): deck for label, deck in self._decks.items()}
        return {"random": self._rng.bit_generator.state, "decks": decks}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._rng.bit_generator.state = state["random"]
        self._decks = {label: list(deck) for label, deck in state["decks"].items()}

    def _random(self) -> Architecture:
        return _random(self._weights, self._rng)

    def _dealt(self) -> Architecture:
        point = {choice.label: choice.values[self._deal(choice)] for choice in self._choices}
        return point if _works(self._weights, point) else self._random()

    def _deal(self, choice: Choice) -> int:
        deck = self._decks[choice.label]
        if not deck:
            deck.extend(map(int, self._rng.permutation(len(choice.values))))
        return deck.pop()

    def _sized(self, point: Architecture, position: int) -> Architecture:
        """`point` as large (-1) or as small (0) as it can be made without using other tensors."""
        sized = {**point, **{label: values[position] for label, values in self._sizes.items()}}
        return sized if _works(self._weights, sized) else point


def _random(weights: SharedWeights, rng: np.random.Generator) -> Architecture:
    """A value for every choice, active or not, drawn uniformly among those that make a network."""
    for _ in range(_DRAWS):
        point = {c.label: c.values[int(rng.integers(len(c.values)))] for c in weights.space.choices}
        if _works(weights, point):
            return point
    raise SlimsearchError(
        f"{_DRAWS} random draws gave no network that takes the images: the space's constraints leave (almost) none"
    )


def _works(weights: SharedWeights, point: Architecture) -> bool:
    try:
        weights.structure(point)
    except SlimsearchError:
        return False
    return True


def _sizes(weights: SharedWeights, points: Sequence[Architecture]) -> dict[str, list[Any]]:
    """The values, from small to large, of the choices that make a network use more or less of the same tensors."""
    found = {}
    for choice in weights.space.choices:
        structures = [(v[choice.label], weights.structure(v)) for v in _variants(weights, points, choice)]
        structures.sort(key=lambda entry: entry[1].params)
        keys = [{slot.key for slot in structure.slots.values()} for _, structure in structures]
        params = [structure.params for _, structure in structures]
        steps = range(1, len(keys))
        if len(keys) > 1 and all(keys[i - 1] <= keys[i] and params[i - 1] < params[i] for i in steps):
            found[choice.label] = [value for value, _ in structures]
    return found


def _variants(weights: SharedWeights, points: Sequence[Architecture], choice: Choice) -> list[Architecture]:
    """A network with each value of `choice` in turn, where it is active; none if not all of them make networks.

    Nor if there are very many: choices among the subsets of a set have thousands.
    """
    if len(choice.values) > _MOST_VALUES:
        return []
    point = next((p for p in points if choice.label in weights.space.canonical(p)), points[0])
    variants = [{**point, choice.label: value} for value in choice.values]
    return variants if all(_works(weights, variant) for variant in variants) else []


def _follow(optimizer: torch.optim.Optimizer, weights: SharedWeights, keys: Sequence[str], weight_decay: float) -> None:
    """Let `optimizer` train the tensors at `keys`, which are new or have taken the place of smaller ones."""
    if not keys:
        return
    current = {id(tensor) for tensor in weights.tensors.values()}
    for group in optimizer.param_groups:
        for replaced in [parameter for parameter in group["params"] if id(parameter) not in current]:
            optimizer.state.pop(replaced, None)
        group["params"] = [parameter for parameter in group["params"] if id(parameter) in current]
    for group in parameter_groups([weights.tensors[key] for key in keys], weight_decay):
        if group["params"]:
            optimizer.add_param_group(group)


class _Progress:
    """The training's state on disk after each epoch, as `Progress` is for one network."""

    def __init__(
        self,
        weights: SharedWeights,
        paths: _Paths,
        order: np.random.Generator,
        facts: Mapping[str, Any],
        path: Path | None,
    ) -> None:
        self._weights, self._paths, self._order, self._path = weights, paths, order, path
        self._facts = json.dumps(facts)

    def resume(self, weight_decay: float) -> tuple[torch.optim.Optimizer, int]:
        """The optimizer, and the epochs that were done before, 0 where there is nothing to go on from."""
        import torch

        state = self._read()
        weights = self._weights
        if state is None:
            groups = parameter_groups(list(weights.tensors.values()), weight_decay)
            return torch.optim.AdamW(groups, fused=True), 0
        for key, tensor in state["weights"].items():
            trained = weights.tensors[key].requires_grad if key in weights.tensors else True
            weights.tensors[key] = torch.nn.Parameter(tensor.to(weights.device), requires_grad=trained)
        groups = [
            {"params": [weights.tensors[key] for key in keys], "weight_decay": decay} for keys, decay in state["groups"]
        ]
        optimizer = torch.optim.AdamW(groups, fused=True)
        optimizer.load_state_dict(state["optimizer"])
        self._order.bit_generator.state = state["order"]
        self._paths.restore(state["paths"])
        torch.set_rng_state(state["random"])
        return optimizer, int(state["epoch"])

    def save(self, optimizer: torch.optim.Optimizer, epoch: int) -> None:
        """After an epoch."""
        import torch

        if self._path is None:
            return
        keys = {id(tensor): key for key, tensor in self._weights.tensors.items()}
        state = {
            "facts": self._facts,
            "epoch": epoch,
            "weights": {key: tensor.detach() for key, tensor in self._weights.tensors.items()},
            "groups": [
                ([keys[id(parameter)] for parameter in group["params"]], group["weight_decay"])
                for group in optimizer.param_groups
            ],
            "optimizer": optimizer.state_dict(),
            "order": self._order.bit_generator.state,
            "paths": self._paths.state(),
            "random": torch.get_rng_state(),
        }
        with atomic(self._path) as temporary:
            torch.save(state, temporary)

    def remove(self) -> None:
        """The training is over."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        import torch

        if self._path is None or not self._path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self._path, weights_only=True)
            return state if state["facts"] == self._facts else None
        except Exception as error:  # torch and pickle each have their own
            _log.warning("'%s' cannot be read, the training starts again: %s", self._path, error)
            return None
