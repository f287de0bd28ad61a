"""Training on images that are in memory: AdamW, a one-cycle schedule, augmentation of whole batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slimsearch.compression import AfterStep, LossTerm, Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.training.folded_norm import fold, insert
from slimsearch.evaluators.training.freed_memory import freed_memory_kept
from slimsearch.evaluators.training.gradient_layout import keep_channels_last
from slimsearch.evaluators.training.precision import autocast, suited
from slimsearch.evaluators.training.processor import threads
from slimsearch.evaluators.training.progress import Progress
from slimsearch.evaluators.training.quick_dropout import quicken

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_CALIBRATION_IMAGES = 256
_EVALUATION_BATCH = 512

OnEpoch = Callable[[int, Mapping[str, float]], bool]


class StoppedEarly(Exception):
    """Training was ended by whoever is told of its epochs."""


@dataclass(frozen=True)
class TrainingSettings:
    """How networks are trained.

    Attributes:
        batch_size: images a step.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW, on weights with more than one dimension.
        augmentation: "none", "shift", "shift-flip", or "auto" for what the data set declares.
        device: "cpu" or "cuda".
        precision: "fp32", "bf16" for autocast, or "mixed" for the faster one for each network.
        warm_up: share of the training in which the learning rate rises, in (0, 1).
        epoch_images: images of an epoch, where these are fewer than the training split has; the next epoch goes on with
            those that were not used yet.
        threads: of PyTorch's operators while a network is trained.
        normalise: train a new network with batch normalisation where it has none, see `_folded_norm`.
    """

    batch_size: int = 64
    learning_rate: float = 5e-3
    weight_decay: float = 0.01
    augmentation: str = "auto"
    device: str = "cpu"
    precision: str = "fp32"
    warm_up: float = 0.25
    normalise: bool = False
    epoch_images: int | None = None
    threads: int = 1


class ImageTraining:
    """The `slimsearch.compression.Training` of image classifiers: trains copies, and looks at the validation split.

    Args:
        data: its training split is learned, its validation split is scored after every epoch.
        settings: how.
        seed: of order, augmentation and dropout.
        epochs: how long stages of compression train unless they are told.
        teachers: whom distillation can learn from, by name.
        on_epoch: told of every epoch; False ends the training with `StoppedEarly`.
        meter: asked between batches whether somebody measures.
        initial: builds the module with the weights that its training began with.
        latency: measures a network's exported file, in ms.
        checkpoint: a file that holds a training's state after each epoch while it goes on, and from which an
            interrupted one is continued; None for none.
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
        """(256, C, H, W) float32 images of the training split, the same for every seed."""
        return self.examples[0]

    @property
    def examples(self) -> tuple[Tensor, Tensor]:
        """The images of `calibration` and their labels, (256,) int64."""
        import torch

        count = min(_CALIBRATION_IMAGES, len(self._data.train))
        chosen = np.sort(np.random.default_rng(0).choice(len(self._data.train), count, replace=False))
        return self._data.normalise(self._data.train.images[chosen]), torch.from_numpy(self._data.train.labels[chosen])

    def initial(self) -> nn.Module:
        if self._initial is None:
            raise SlimsearchError("the weights that the training began with are not known")
        return self._initial()

    def latency_ms(self, network: Network) -> float:
        if self._latency is None:
            raise SlimsearchError("nothing measures latency here")
        return self._latency(network)

    def fit(
        self,
        network: Network,
        *,
        epochs: int,
        learning_rate: float | None = None,
        losses: Sequence[LossTerm] = (),
        after_step: Sequence[AfterStep] = (),
    ) -> Network:
        """Train a copy; the learning rate rises to its peak in the warm-up and falls along a cosine.

        Source: one-cycle schedule of Smith and Topin 2018, AdamW of Loshchilov and Hutter 2019.

        Raises:
            SlimsearchError: the loss is not finite.
            StoppedEarly: `on_epoch` said so.
        """
        with threads(self._settings.threads), freed_memory_kept():
            return self._fit(network, epochs, learning_rate, losses, after_step)

    def _fit(
        self, network: Network, epochs: int, learning_rate: float | None, losses: Sequence[LossTerm],
        after_step: Sequence[AfterStep],
    ) -> Network:  # fmt: skip
        import torch
        import torch.nn.functional as F

        settings, train = self._settings, self._data.train
        device = torch.device(settings.device)
        look = self._data.normalise(train.images[:2])
        settings = replace(settings, precision=suited(settings.precision, network, look))
        torch.manual_seed(self._seed)
        module = _to(network.copy_module(), device, torch.channels_last).train()
        inserted: list[str] = []
        if settings.normalise and not losses and not after_step:
            inserted = insert(module, look.to(device))
        attached = [term.attach(module) for term in losses]
        take_back = [quicken(module), keep_channels_last(module)] if settings.device == "cpu" else []
        order = np.random.default_rng(self._seed)
        count = min(len(train), settings.epoch_images or len(train))
        steps = max(1, count // settings.batch_size)  # the last, smaller batch of an epoch is left out
        batch_size = min(settings.batch_size, count)
        parameters = [*module.parameters(), *(parameter for own in attached for parameter in own)]
        optimizer = torch.optim.AdamW(parameter_groups(parameters, settings.weight_decay), fused=True)
        peak = learning_rate or settings.learning_rate
        own_weight = 1 - sum(term.weight for term in losses)
        augment = augmentation_of(settings, self._data)
        if augment == "none":
            with autocast(settings.precision, settings.device):
                for term in losses:
                    term.look_through(self._in_order(device))
        progress = Progress(module, optimizer, order, [*losses, *after_step], self._checkpoint)
        for epoch in range(progress.resume(epochs * steps) + 1, epochs + 1):
            permutation = self._order_of(epoch, count, order)
            total = torch.zeros((), device=device)
            for step in range(steps):
                done = (epoch - 1) * steps + step
                set_rate(optimizer, peak, done, epochs * steps, settings.warm_up)
                chosen = np.sort(permutation[step * batch_size : (step + 1) * batch_size])
                images, labels = training_batch(self._data, chosen, augment, order, device)
                if augment == "none":
                    for term in losses:
                        term.see(torch.from_numpy(chosen))
                with autocast(settings.precision, settings.device):
                    logits = module(images)
                    loss = F.cross_entropy(logits.float(), labels) * own_weight
                    for term in losses:
                        loss = loss + term.weight * term(images, logits)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += loss.detach()
                for callback in after_step:
                    callback(module, done, epochs * steps)
                optimizer.zero_grad(set_to_none=True)
                self._meter.pause_if_measuring()
            train_loss = float(total) / steps
            if not math.isfinite(train_loss):
                raise SlimsearchError(
                    f"the loss is {train_loss} in epoch {epoch}: lower --learning-rate {settings.learning_rate:g}"
                )
            if epoch < epochs:
                progress.save(epoch, epochs * steps)
            if self._on_epoch is not None:
                scores = {"train_loss": train_loss, **validate(module, self._data, settings, self._meter)}
                if not self._on_epoch(epoch, scores):
                    raise StoppedEarly
        for term in losses:
            term.detach()
        progress.remove()
        for undo in take_back:
            undo()
        fold(module, inserted)
        module = _to(module, torch.device("cpu"), torch.contiguous_format).eval()
        return Network(module, network.structure, network.quantization)

    def _order_of(
        self, epoch: int, count: int, order: np.random.Generator
    ) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Places of the `count` images of an epoch, in random order; shorter epochs share the images among them."""
        total = len(self._data.train)
        if count == total:
            return order.permutation(total)
        passes = range((epoch - 1) * count // total, (epoch * count - 1) // total + 1)
        # Each pass over the data has an order of its own, whichever epoch asks for a part of it.
        found = np.concatenate([np.random.default_rng([self._seed, one]).permutation(total) for one in passes])
        first = (epoch - 1) * count - passes[0] * total
        return found[first : first + count]

    def _in_order(self, device: torch.device) -> Iterator[Tensor]:
        import torch

        for images, _ in self._data.batches(self._data.train, _EVALUATION_BATCH):
            yield images.to(device, memory_format=torch.channels_last)
            self._meter.pause_if_measuring()


def augmentation_of(settings: TrainingSettings, data: Dataset) -> str:
    """The augmentation that `settings` ask for on `data`."""
    return settings.augmentation if settings.augmentation != "auto" else data.augmentation


def training_batch(
    data: Dataset, chosen: np.ndarray[tuple[int], np.dtype[np.int64]], augment: str, order: np.random.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The training images at `chosen`, augmented and normalised, (N, C, H, W) float32, and their labels, (N,) int64."""
    import torch

    images = data.train.images[chosen]
    if augment != "none":
        images = _shift(images, order, flip=augment == "shift-flip")
    batch = data.normalise(images).to(device, memory_format=torch.channels_last)
    return batch, torch.from_numpy(data.train.labels[chosen]).to(device)


def validate(module: nn.Module, data: Dataset, settings: TrainingSettings, meter: Meter) -> dict[str, float]:
    """Accuracy and loss of `module` on the validation split; it is left in training mode."""
    import torch
    import torch.nn.functional as F

    module.eval()
    right, loss, validation = 0, 0.0, data.validation
    with torch.no_grad(), autocast(settings.precision, settings.device):
        for images, labels in data.batches(validation, _EVALUATION_BATCH):
            batch = images.to(settings.device, memory_format=torch.channels_last)
            logits = module(batch).float().cpu()
            targets = torch.from_numpy(labels)
            right += int((logits.argmax(dim=1) == targets).sum())
            loss += float(F.cross_entropy(logits, targets, reduction="sum"))
            meter.pause_if_measuring()
    module.train()
    return {"val_accuracy": right / len(validation), "val_loss": loss / len(validation)}


def _to(module: nn.Module, device: torch.device, layout: torch.memory_format) -> nn.Module:
    """`module` moved; convolutions are fastest in channels_last, everything else expects contiguous weights."""
    return module.to(device=device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def parameter_groups(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Biases and the parameters of normalisation and of quantization are not decayed."""
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, steps: int, warm_up: float) -> None:
    """The learning rate of a step, from a 25th of `peak` and back to nothing; the first moment moves against it."""
    top = max(1.0, warm_up * steps - 1)
    if step <= top:
        height = (1 - math.cos(math.pi * step / top)) / 2  # 0 to 1
        rate = peak * (1 + 24 * height) / 25
    else:
        height = (1 + math.cos(math.pi * (step - top) / max(1.0, steps - 1 - top))) / 2  # 1 to 0
        rate = peak * (height + 4e-6 * (1 - height))
    for group in optimizer.param_groups:
        group["lr"], group["betas"] = rate, (0.95 - 0.1 * height, 0.999)


def _shift(
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], rng: np.random.Generator, *, flip: bool
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Each image moved, its edges filled with its border's value, and perhaps half of them mirrored.

    By up to a fourteenth of the side; pictures that may be mirrored bear an eighth (He et al. 2016 for CIFAR-10).
    """
    count, _, height, width = images.shape
    reach = max(1, height // (8 if flip else 14))
    padded = np.pad(images, ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
    rows = rng.integers(0, 2 * reach + 1, count)[:, None] + np.arange(height)  # (N, H)
    columns = rng.integers(0, 2 * reach + 1, count)[:, None] + np.arange(width)  # (N, W)
    if flip:
        mirrored = rng.random(count) < 0.5
        columns[mirrored] = columns[mirrored][:, ::-1]
    picks = np.arange(count)[:, None, None]
    # The advanced indices around the slice put it last: (N, H, W, C).
    return padded[picks, :, rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2)
