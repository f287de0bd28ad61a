"""Training of a supernet: each step trains a few networks of the space with the shared weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.compression import Network, layout_for
from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.supernet.supernet import SharedWeights, Supernet, calibration_images, describe
from slimsearch.evaluators.training.augmentation import Augmentation
from slimsearch.evaluators.training.batches import TrainingBatches
from slimsearch.evaluators.training.checkpoint import CheckpointFile, random_state, restore_random
from slimsearch.evaluators.training.cpu_speedups import reuse_freed_memory
from slimsearch.evaluators.training.hardware import autocast, network_precision
from slimsearch.evaluators.training.module_in_training import parameter_groups
from slimsearch.evaluators.training.network_training import (
    OnEpoch,
    StoppedEarly,
    TrainingSettings,
    set_rate,
    validate,
)
from slimsearch.evaluators.training.probe import first_output
from slimsearch.search_spaces import Choice, NniSpace

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SAMPLINGS = ("sandwich", "fair", "random")

# Networks sampled before training to create all shared tensors: at most, and in a row without a new tensor.
MAX_COVERING, _WITHOUT_NEW = 256, 32
# Peak learning rate relative to that of a single network: on `lenet` and mnist5k, the ranks of inherited accuracies
# then agree better with those of trained ones.
_RATE = 0.5
_MAX_NETWORKS_PER_STEP = 12  # of fair sampling; choices with more values take several steps
_MAX_DRAWS = 100
# Networks, and values of a choice, built to find out how the choice changes the tensors.
_PROBES, _MAX_PROBED_VALUES = 16, 64

Architecture = dict[str, Any]


@reuse_freed_memory()
def train_supernet(
    space: NniSpace,
    data: Dataset,
    settings: TrainingSettings,
    *,
    epochs: int,
    seed: int,
    sampling: str = "sandwich",
    on_epoch: OnEpoch | None = None,
    meter: Meter | None = None,
    checkpoint: Path | None = None,
) -> Supernet:
    """Train the shared weights of all networks of `space`.

    Schedule, batches and optimizer are those of `NetworkTraining`, with half the learning rate. Each step samples
    networks, averages their losses on one batch, and updates the weights once. `sampling` is one of:

    - "random": one network, all choices uniform. Source: single path one-shot, Guo et al. 2020.
    - "fair": as many networks as the largest choice has values, at most 12; each choice deals its values from a
      shuffled deck, so that all are used equally often. Source: FairNAS, Chu et al. 2021. Difference: choices may have
      different numbers of values.
    - "sandwich": a large network, a small one and two random ones. Source: universally slimmable networks, Yu and
      Huang 2019. Differences: only choices that slice shared tensors (widths, depths) are large or small; choices that
      select tensors (branches, kernels) or none (activations) are random, so that all branches are trained equally.
      There is no distillation.

    Args:
        space: of the networks.
        data: trained on its training split; the validation split is scored after every epoch.
        settings: hyper-parameters.
        epochs: passes over the training split, each with several networks per step.
        seed: of initial weights, order, augmentation, dropout and sampling.
        sampling: one of `SAMPLINGS`.
        on_epoch: called after every epoch with the scores of a large network; False ends the training.
        meter: pauses the training between batches while latency is measured.
        checkpoint: file for the state after each epoch, from which an interrupted training continues; None for none.

    Raises:
        SlimsearchError: `sampling` is unknown, a network fails, or the loss is not finite.
        StoppedEarly: `on_epoch` returned False.
    """
    import torch

    if sampling not in SAMPLINGS:
        raise SlimsearchError(f"unknown sampling '{sampling}'; known: {', '.join(SAMPLINGS)}")
    meter = meter or Meter()
    device = torch.device(settings.device)
    torch.manual_seed(seed)
    weights = SharedWeights(space, settings.device)
    paths = PathSampler(weights, sampling, seed)
    largest = Network(space.build(paths.largest))
    settings = replace(settings, precision=network_precision(settings.precision, largest, calibration_images(data)))
    order = np.random.default_rng(seed)
    train = data.train
    steps = max(1, len(train) // settings.batch_size)
    batch_size = min(settings.batch_size, len(train))
    peak = settings.peak(largest.params) * _RATE
    facts = {"sampling": sampling, "epochs": epochs, "seed": seed}
    identity = {
        **facts,
        "steps": steps,
        "settings": asdict(settings),
        "peak": peak,
        "space": describe(space),
    }
    layout = _layout(weights, paths, data)
    batches = TrainingBatches(data, Augmentation(settings.augmentation, data), device, layout)
    state = _SupernetCheckpoint(weights, paths, order, identity, checkpoint)
    optimizer, before = state.resume(settings.weight_decay)
    for epoch in range(before + 1, epochs + 1):
        permutation = order.permutation(len(train))
        total = torch.zeros((), device=device)
        for step in range(steps):
            chosen = np.sort(permutation[step * batch_size : (step + 1) * batch_size])
            images, labels = batches(chosen, order)
            architectures = paths.draw()
            for architecture in architectures:
                _add_tensors(optimizer, weights, weights.extend(architecture, seed), settings.weight_decay)
            set_rate(optimizer, peak, (epoch - 1) * steps + step, epochs * steps, settings.warm_up)
            for architecture in architectures:
                with autocast(settings.precision, settings.device):
                    logits = _run(weights, architecture, images)
                    loss = data.task.loss(logits.float(), labels) / len(architectures)
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
                meter.pause_if_measuring()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        train_loss = float(total) / steps
        if not math.isfinite(train_loss):
            raise SlimsearchError(
                f"the supernet's loss is {train_loss} in epoch {epoch}: lower --learning-rate {peak / _RATE:g}, "
                "of which a supernet takes half"
            )
        if epoch < epochs:
            state.save(optimizer, epoch)
        if on_epoch is not None:
            network = Supernet(weights).subnet(paths.largest, calibration_images(data)).to(device)
            if not on_epoch(epoch, {"train_loss": train_loss, **validate(network, data, settings, meter, layout)}):
                raise StoppedEarly
    state.remove()
    return Supernet(weights.on("cpu"), facts)


def _layout(weights: SharedWeights, paths: PathSampler, data: Dataset) -> torch.memory_format:
    """The faster layout of images in which the architectures of `paths` compute the same."""
    import torch

    images = data.normalise(data.train.inputs[:2]).contiguous().to(weights.device)
    trained = [tensor for tensor in weights.tensors.values() if tensor.requires_grad]

    def run(layout: torch.memory_format) -> list[Tensor]:
        batch = images.to(memory_format=layout)
        with torch.no_grad():
            logits = [_run(weights, architecture, batch, training=False) for architecture in paths.covering]
        loss = _run(weights, paths.largest, batch, training=False).flatten(1).logsumexp(dim=1).sum()
        gradients = torch.autograd.grad(loss, trained, allow_unused=True) if loss.requires_grad else ()
        return [*logits, *(gradient for gradient in gradients if gradient is not None)]

    return layout_for(run)


def _run(weights: SharedWeights, architecture: Mapping[str, Any], images: Tensor, *, training: bool = True) -> Tensor:
    try:
        return first_output(weights(architecture, images, training=training))  # type: ignore[no-any-return]
    except Exception as error:  # a user's module may raise anything
        name, canonical = weights.space.name, weights.space.canonical(architecture)
        raise SlimsearchError(f"{name} {canonical} fails in training: {describe_error(error)}") from error


class PathSampler:
    """Samples the networks of each training step; first adds the tensors of all networks to the shared weights.

    Args:
        weights: extended in place.
        sampling: one of `SAMPLINGS`, see `train_supernet`.
        seed: of the sampling and of initial weights.
    """

    def __init__(self, weights: SharedWeights, sampling: str, seed: int) -> None:
        self._weights, self._sampling = weights, sampling
        self._choices = weights.space.choices
        self._decks: dict[str, list[int]] = {choice.label: [] for choice in self._choices}
        self._rng = np.random.default_rng([seed, 0])
        points = [self._random() for _ in range(_PROBES)]
        self._sizes = _sizes(weights, points)
        self.largest = self._sized(points[0], -1)
        one_at_a_time = [variant for choice in self._choices for variant in _variants(weights, points, choice)]
        self.covering = [self._sized(point, -1) for point in [*points, *one_at_a_time]]
        """Architectures that have every value of every choice."""
        for architecture in self.covering:
            weights.extend(architecture, seed)
        # Combinations of choices can have their own tensors: sample until many in a row add none.
        without_new = drawn = 0
        while without_new < _WITHOUT_NEW and drawn < MAX_COVERING:
            new = weights.extend(self._sized(self._random(), -1), seed)
            without_new, drawn = 0 if new else without_new + 1, drawn + 1
        self._rng = np.random.default_rng([seed, 1])

    def draw(self) -> list[Architecture]:
        """The architectures of one step."""
        if self._sampling == "random":
            return [self._random()]
        if self._sampling == "fair":
            largest = max(len(choice.values) for choice in self._choices)
            return [self._dealt() for _ in range(min(largest, _MAX_NETWORKS_PER_STEP))]
        base = self._random()
        return [self._sized(base, -1), self._sized(base, 0), self._random(), self._random()]

    def state(self) -> dict[str, Any]:
        """State for a checkpoint."""
        # Plain text: NNI's label class cannot be loaded without pickle.
        decks = {str(label): deck for label, deck in self._decks.items()}
        return {"random": self._rng.bit_generator.state, "decks": decks}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint."""
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
        """`point` with its slicing choices at the largest (-1) or smallest (0) value; all others stay."""
        sized = {**point, **{label: values[position] for label, values in self._sizes.items()}}
        return sized if _works(self._weights, sized) else point


def _random(weights: SharedWeights, rng: np.random.Generator) -> Architecture:
    """A value for every choice, active or not; uniform among the combinations that give a valid network."""
    for _ in range(_MAX_DRAWS):
        point = {c.label: c.values[int(rng.integers(len(c.values)))] for c in weights.space.choices}
        if _works(weights, point):
            return point
    raise SlimsearchError(
        f"none of {_MAX_DRAWS} random architectures is a valid network for these images: the space is too constrained"
    )


def _works(weights: SharedWeights, point: Architecture) -> bool:
    try:
        weights.structure(point)
    except SlimsearchError:
        return False
    return True


def _sizes(weights: SharedWeights, points: Sequence[Architecture]) -> dict[str, list[Any]]:
    """The choices that slice shared tensors, each with its values from small to large."""
    sizes = {}
    for choice in weights.space.choices:
        structures = [(v[choice.label], weights.structure(v)) for v in _variants(weights, points, choice)]
        structures.sort(key=lambda entry: entry[1].params)
        keys = [{slot.key for slot in structure.slots.values()} for _, structure in structures]
        params = [structure.params for _, structure in structures]
        steps = range(1, len(keys))
        if len(keys) > 1 and all(keys[i - 1] <= keys[i] and params[i - 1] < params[i] for i in steps):
            sizes[choice.label] = [value for value, _ in structures]
    return sizes


def _variants(weights: SharedWeights, points: Sequence[Architecture], choice: Choice) -> list[Architecture]:
    """An architecture with each value of `choice`; none if one of them is invalid, or if there are too many values."""
    if len(choice.values) > _MAX_PROBED_VALUES:
        return []
    point = next((p for p in points if choice.label in weights.space.canonical(p)), points[0])
    variants = [{**point, choice.label: value} for value in choice.values]
    return variants if all(_works(weights, variant) for variant in variants) else []


def _add_tensors(
    optimizer: torch.optim.Optimizer, weights: SharedWeights, keys: Sequence[str], weight_decay: float
) -> None:
    """Add the tensors at `keys` to `optimizer`, and remove those that they replace."""
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


class _SupernetCheckpoint:
    """The state of a supernet's training: shared weights, optimizer, random generators, and sampling.

    Args:
        facts: settings of the training; a checkpoint of another training is ignored.
    """

    def __init__(
        self,
        weights: SharedWeights,
        paths: PathSampler,
        order: np.random.Generator,
        facts: Mapping[str, Any],
        path: Path | None,
    ) -> None:
        self._weights, self._paths, self._order = weights, paths, order
        self._file = CheckpointFile(path)
        self._facts = json.dumps(facts)

    def resume(self, weight_decay: float) -> tuple[torch.optim.Optimizer, int]:
        """The optimizer, and the number of epochs done, 0 for a new start."""
        import torch

        state = self._file.read()
        weights = self._weights
        if state is None or state.get("facts") != self._facts:
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
        restore_random(state)
        return optimizer, int(state["epoch"])

    def save(self, optimizer: torch.optim.Optimizer, epoch: int) -> None:
        """Write the state after `epoch`."""
        import torch

        if self._file.path is None:
            return
        keys = {id(tensor): key for key, tensor in self._weights.tensors.items()}
        self._file.write(
            {
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
                **random_state(torch.device(self._weights.device)),
            }
        )

    def remove(self) -> None:
        """Delete the file: the training has ended."""
        self._file.remove()
