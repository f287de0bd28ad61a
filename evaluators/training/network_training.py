"""Training of networks: AdamW, one-cycle schedule, augmentation of whole batches in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slimsearch.compression import AfterStep, LossTerm, Network, set_layout
from slimsearch.errors import SlimsearchError, described
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.training.augmentation import Augmentation, check_augmentation
from slimsearch.evaluators.training.batches import TrainingBatches
from slimsearch.evaluators.training.checkpoint import Checkpoint
from slimsearch.evaluators.training.cpu_speedups import reuse_freed_memory
from slimsearch.evaluators.training.folded_norm import fold, insert
from slimsearch.evaluators.training.hardware import autocast, computing_on, network_precision, threads
from slimsearch.evaluators.training.module_in_training import ModuleInTraining
from slimsearch.evaluators.training.probe import TrainingProbe, first_output

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_CALIBRATION_EXAMPLES = 256
_EVALUATION_BATCH = 256  # larger ones are not faster, and take more memory than a training step
_DRY_RUN_EXAMPLES = 64
_PRECISIONS = ("auto", "fp32", "bf16", "mixed")
LEARNING_RATE = 1e-2
"""The default for networks of at least `_MANY_PARAMS` parameters."""
_MANY_PARAMS, _MOST_TIMES = 10_000, 3  # docs/training.md has what this gains and what else was tried

OnEpoch = Callable[[int, Mapping[str, float]], bool]
"""Called with the epoch, from 1, and its metrics; returns whether the training continues."""


class StoppedEarly(Exception):
    """The `OnEpoch` callback ended a training early."""


@dataclass(frozen=True)
class TrainingSettings:
    """Hyper-parameters of training.

    Attributes:
        batch_size: images per step.
        learning_rate: peak of the one-cycle schedule; None for that of `peak`.
        weight_decay: of AdamW, on weights with more than one dimension.
        augmentation: see `Augmentation`; "auto": that of the data set.
        device: "cpu" or "cuda".
        precision: "fp32", "bf16" (autocast), or "mixed" for the faster one for each network.
        warm_up: share of the training in which the learning rate rises, in (0, 1).
        normalise: train new networks with batch normalization where they have none, see `folded_norm`.
        epoch_images: images per epoch, if fewer than the training split has; the next epoch continues with the images
            that have not been used yet.
        threads: of PyTorch's operators during training.
    """

    batch_size: int = 64
    learning_rate: float | None = None
    weight_decay: float = 0.01
    augmentation: str = "auto"
    device: str = "cpu"
    precision: str = "fp32"
    warm_up: float = 0.25
    normalise: bool = False
    epoch_images: int | None = None
    threads: int = 1

    def check(self) -> None:
        """Check settings that come from Python.

        Raises:
            SlimsearchError: a value is out of range.
        """
        check_augmentation(self.augmentation)
        if self.precision not in _PRECISIONS:
            raise SlimsearchError(f"precision {self.precision!r} is unknown; known: {', '.join(_PRECISIONS)}")
        for name in ("batch_size", "threads", *([] if self.epoch_images is None else ["epoch_images"])):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise SlimsearchError(f"{name} {value!r} is not a whole number above 0")
        for name, most in {"learning_rate": math.inf, "weight_decay": math.inf, "warm_up": 1.0}.items():
            value = getattr(self, name)
            if value is None and name == "learning_rate":
                continue
            if not isinstance(value, int | float) or not 0 <= value < most or (value == 0 and name != "weight_decay"):
                raise SlimsearchError(f"{name} {value!r} is not a number above 0{' and below 1' if most == 1 else ''}")

    def peak(self, params: int) -> float:
        """The highest learning rate for a network of `params` parameters.

        By default it is `LEARNING_RATE`; below 10,000 parameters, it rises with the root of their number to at most
        three times as much.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return LEARNING_RATE * min(_MOST_TIMES, max(1.0, math.sqrt(_MANY_PARAMS / max(1, params))))


class NetworkTraining:
    """The `slimsearch.compression.Training` of networks: trains a copy of a network by the loss of the data set's task.

    Args:
        data: trained on its training split; the validation split is scored after every epoch.
        settings: hyper-parameters.
        seed: of order, augmentation and dropout.
        epochs: default length of a compression stage's training.
        teachers: networks for distillation, by name.
        on_epoch: called after every epoch; False ends the training with `StoppedEarly`.
        meter: pauses the training between batches while latency is measured.
        initial: builds the module with the weights that its training started from.
        latency: measures a network's exported file, in ms.
        checkpoint: file for the state after each epoch, from which an interrupted training continues; None for none.
    """

    def __init__(
        self,
        data: Dataset,
        settings: TrainingSettings,
        seed: int,
        epochs: int = 1,
        teachers: Mapping[str, Network] | None = None,
        on_epoch: OnEpoch | None = None,
        meter: Meter | None = None,
        initial: Callable[[], nn.Module] | None = None,
        latency: Callable[[Network], float] | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self._data = data
        self._settings = settings
        self._seed = seed
        self._epochs = epochs
        self._teachers = teachers or {}
        self._on_epoch = on_epoch
        self._meter = meter or Meter()
        self._initial = initial
        self._latency = latency
        self._checkpoint = checkpoint
        self._tried: Network | None = None  # the network whose first step works on the CPU

    @property
    def seed(self) -> int:
        return self._seed

    @property
    def epochs(self) -> int:
        return self._epochs

    def teacher(self, name: str) -> Network:
        if name not in self._teachers:
            raise SlimsearchError(f"distillation has no teacher '{name}'")
        return self._teachers[name]

    @property
    def calibration(self) -> Tensor:
        """Calibration inputs: (256, ...) float32 from the training split, the same for every seed."""
        return self.examples[0]

    @property
    def examples(self) -> tuple[Tensor, Tensor]:
        """The inputs of `calibration` and their targets."""
        import torch

        count = min(_CALIBRATION_EXAMPLES, len(self._data.train))
        chosen = np.sort(np.random.default_rng(0).choice(len(self._data.train), count, replace=False))
        return self._data.normalise(self._data.train.inputs[chosen]), torch.from_numpy(self._data.train.targets[chosen])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of the data set's task, see `LearningTask.loss`."""
        return self._data.task.loss(outputs.float(), targets)

    @property
    def gives_logits(self) -> bool:
        """Whether outputs are logits of classes."""
        return self._data.task.gives_logits

    def initial(self) -> nn.Module:
        if self._initial is None:
            raise SlimsearchError("the initial weights of this network are unknown")
        return self._initial()

    def latency_ms(self, network: Network) -> float:
        if self._latency is None:
            raise SlimsearchError("latency cannot be measured in this training")
        return self._latency(network)

    def check(self, network: Network) -> None:
        """Try the first step of a training.

        Raises:
            SlimsearchError: the network cannot be trained, see `TrainingProbe`.
        """
        TrainingProbe(network, self._data).check_training()
        self._tried = network

    def fit(
        self,
        network: Network,
        *,
        epochs: int,
        learning_rate: float | None = None,
        learning_rate_option: str = "--learning-rate",
        losses: Sequence[LossTerm] = (),
        after_step: Sequence[AfterStep] = (),
    ) -> Network:
        """Train a copy of `network` and return it, in evaluation mode.

        Source: one-cycle schedule of Smith and Topin 2018, AdamW of Loshchilov and Hutter 2019.

        Args:
            network: the start.
            epochs: passes over the images of an epoch.
            learning_rate: peak of the schedule; by default that of the settings.
            learning_rate_option: how the user sets it, for the message about a loss that is not finite.
            losses: further terms of the loss; that of the task has the rest of the total weight of 1.
            after_step: callbacks after each step of the optimizer.

        Raises:
            SlimsearchError: the network cannot be trained, or the loss is not finite.
            StoppedEarly: `on_epoch` returned False.
        """
        with (
            threads(self._settings.threads),
            computing_on(self._settings.device),
            reuse_freed_memory(),
            self._meter.training(),
            described("the training failed", StoppedEarly),
        ):
            return self._fit(network, epochs, learning_rate, learning_rate_option, losses, after_step)

    def _fit(
        self, network: Network, epochs: int, learning_rate: float | None, learning_rate_option: str,
        losses: Sequence[LossTerm], after_step: Sequence[AfterStep],
    ) -> Network:  # fmt: skip
        import torch

        settings, train = self._settings, self._data.train
        device = torch.device(settings.device)
        example = self._data.normalise(train.inputs[:2])
        module = network.copy_module().to(device)
        probe = TrainingProbe(Network(module), self._data, settings.device)
        if network is not self._tried or device.type != "cpu":
            probe.check_training()
        layout = probe.layout()
        precision = network_precision(settings.precision, network, example)
        if precision == "bf16" and not probe.runs_in(precision, layout):
            precision = "fp32"
        settings = replace(settings, precision=precision)
        torch.manual_seed(self._seed)
        set_layout(module.train(), layout)
        inserted: list[str] = []
        if settings.normalise and not losses and not after_step:
            inserted = insert(module, example.to(device))
        order = np.random.default_rng(self._seed)
        count = min(len(train), settings.epoch_images or len(train))
        steps = max(1, count // settings.batch_size)  # the last, smaller batch of an epoch is left out
        trained = ModuleInTraining(module, settings.weight_decay, layout, epochs * steps, losses, after_step)
        batch_size = min(settings.batch_size, count)
        peak = learning_rate or settings.peak(network.params)
        own_weight = 1 - sum(term.weight for term in losses)
        augment = Augmentation(settings.augmentation, self._data)
        batches = TrainingBatches(self._data, augment, device, layout)
        if augment.is_none:
            with autocast(settings.precision, settings.device):
                for term in losses:
                    term.look_through(self._in_order(device, layout))
        checkpoint = Checkpoint(trained, order, [*losses, *after_step], self._checkpoint)
        for epoch in range(checkpoint.resume(epochs * steps) + 1, epochs + 1):
            permutation = self._order_of(epoch, count, order)
            total = torch.zeros((), device=device)
            for step in range(steps):
                done = (epoch - 1) * steps + step
                set_rate(trained.optimizer, peak, done, epochs * steps, settings.warm_up)
                chosen = np.sort(permutation[step * batch_size : (step + 1) * batch_size])
                inputs, targets = batches(chosen, order)
                if augment.is_none:
                    for term in losses:
                        term.see(torch.from_numpy(chosen))
                with autocast(settings.precision, settings.device):
                    outputs = first_output(trained.module(inputs))
                    loss = self.loss(outputs, targets) * own_weight
                    for term in losses:
                        loss = loss + term.weight * term(inputs, outputs)
                loss.backward()  # type: ignore[no-untyped-call]
                trained.optimizer.step()
                total += loss.detach()
                for callback in after_step:
                    callback(trained.module, done, epochs * steps)
                trained.optimizer.zero_grad(set_to_none=True)
                trained.shrink()
                self._meter.pause_if_measuring()
            train_loss = float(total) / steps
            if not math.isfinite(train_loss):
                raise SlimsearchError(
                    f"the loss is {train_loss} in epoch {epoch}, at a learning rate of up to {peak:g}: "
                    f"lower {learning_rate_option}"
                )
            if epoch < epochs:
                checkpoint.save(epoch, epochs * steps)
            if self._on_epoch is not None:
                scores = {
                    "train_loss": train_loss,
                    **validate(trained.module, self._data, settings, self._meter, layout),
                }
                if not self._on_epoch(epoch, scores):
                    raise StoppedEarly
        for term in losses:
            term.detach()
        checkpoint.remove()
        trained.undo()
        fold(trained.module, inserted)
        module = trained.module.cpu().eval()
        set_layout(module, torch.contiguous_format)  # all other code expects it
        return Network(module, network.structure, network.quantization)

    def _order_of(
        self, epoch: int, count: int, order: np.random.Generator
    ) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Indices of the `count` images of an epoch, in random order; shorter epochs divide the images among them."""
        total = len(self._data.train)
        if count == total:
            return order.permutation(total)
        passes = range((epoch - 1) * count // total, (epoch * count - 1) // total + 1)
        # Each pass over the data has its own order, seeded by its index, so that a resumed training finds it again.
        images = np.concatenate([np.random.default_rng([self._seed, index]).permutation(total) for index in passes])
        first = (epoch - 1) * count - passes[0] * total
        return images[first : first + count]

    def _in_order(self, device: torch.device, layout: torch.memory_format) -> Iterator[Tensor]:
        for inputs, _ in self._data.batches(self._data.train, _EVALUATION_BATCH):
            yield inputs.to(device, memory_format=layout)
            self._meter.pause_if_measuring()


class DryRunTraining(NetworkTraining):
    """A `Training` without training: compression stages give the final widths, ranks and number formats at once."""

    def fit(
        self, network: Network, *, epochs: int, learning_rate: float | None = None,
        learning_rate_option: str = "--learning-rate", losses: Sequence[LossTerm] = (),
        after_step: Sequence[AfterStep] = (),
    ) -> Network:  # fmt: skip
        """A copy of `network` after one call of each callback, as the last step of a training, with gradients."""
        module = network.copy_module().eval()
        if after_step:
            inputs, targets = (tensor[:_DRY_RUN_EXAMPLES] for tensor in self.examples)
            self.loss(module(inputs), targets).backward()  # type: ignore[no-untyped-call]
            for callback in after_step:
                callback(module, 0, 1)
            module.zero_grad(set_to_none=True)
        return Network(module, network.structure, network.quantization)


def validate(
    module: nn.Module, data: Dataset, settings: TrainingSettings, meter: Meter, layout: torch.memory_format
) -> dict[str, float]:
    """The leading metric and ``val_loss`` of `module` on the validation split; leaves it in training mode."""
    import torch

    module.eval()
    loss, task, validation = 0.0, data.task, data.validation
    examples = []
    with torch.no_grad(), autocast(settings.precision, settings.device):
        for inputs, targets in data.batches(validation, _EVALUATION_BATCH):
            outputs = module(inputs.to(settings.device, memory_format=layout)).float().cpu()
            loss += float(task.loss(outputs, torch.from_numpy(targets))) * len(targets)
            examples.append(task.examples(outputs.numpy(), targets)[:, : task.paired])
            meter.pause_if_measuring()
    module.train()
    value = task.leading_value(np.concatenate(examples))
    return {f"val_{task.leading()[0]}": value, "val_loss": loss / len(validation)}


def set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, steps: int, warm_up: float) -> None:
    """One-cycle learning rate of a step, from ``peak / 25`` to `peak` to about 0; beta1 moves the opposite way."""
    top = max(1.0, warm_up * steps - 1)
    if step <= top:
        height = (1 - math.cos(math.pi * step / top)) / 2  # 0 to 1
        rate = peak * (1 + 24 * height) / 25
    else:
        height = (1 + math.cos(math.pi * (step - top) / max(1.0, steps - 1 - top))) / 2  # 1 to 0
        rate = peak * (height + 4e-6 * (1 - height))
    for group in optimizer.param_groups:
        group["lr"], group["betas"] = rate, (0.95 - 0.1 * height, 0.999)
