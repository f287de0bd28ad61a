"""Loading, training and scoring of the tutorials, without NNI: shared by the flows of NNI."""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from slimsearch import search_spaces  # noqa: F401 - torchvision, and with it NNI, may need its operators declared
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import Dataset, Split

Batches = DataLoader[tuple[Tensor, int]]
TrainingStep = Callable[[tuple[Tensor, Tensor], nn.Module], Tensor]

BATCH = 64
LEARNING_RATE = 1e-3
DESCRIPTION = "DataLoader of PIL images with ToTensor and Normalize, Adam 1e-3, fp32, eager"


class Images(TorchDataset[tuple[Tensor, int]]):
    """Splits of `data` as PIL images with a transform, like ``torchvision.datasets.MNIST`` and ``CIFAR10``.

    What differs: mean and std are those of `data`, so that exported files have the input of all other files.
    """

    def __init__(self, data: Dataset, *splits: Split, augment: bool = False) -> None:
        from torchvision import transforms

        images = np.concatenate([split.inputs for split in splits])  # (N, C, H, W) uint8
        self.images = images[:, 0] if images.shape[1] == 1 else np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self.labels = [int(label) for split in splits for label in split.targets]
        # As in NNI's CIFAR-10 examples.
        augmentation = [transforms.RandomHorizontalFlip(), transforms.RandomCrop(data.input_shape[1:], 4)]
        self.transform = transforms.Compose(
            [*augmentation * augment, transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def loaders(data: Dataset, batch: int = BATCH, augment: bool = False) -> tuple[Batches, Batches]:
    """Training and test batches; as in the tutorials, there is no validation split.

    Args:
        augment: flip and shift the training images.

    Raises:
        SlimsearchError: `data` has no test split.
    """
    if data.test is None:
        raise SlimsearchError(f"data set '{data.name}' has no test split, on which the tutorials score")
    train, test = Images(data, data.train, data.validation, augment=augment), Images(data, data.test)
    return DataLoader(train, batch_size=batch, shuffle=True), DataLoader(test, batch_size=batch)


def training_step(batch: tuple[Tensor, Tensor], model: nn.Module) -> Tensor:
    """Cross-entropy of one batch."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Batches,
    test: Batches,
    step: TrainingStep = training_step,
    max_steps: int | None = None,
) -> dict[str, float]:
    """Train for one epoch, or `max_steps` batches of it, then score.

    Returns:
        ``test_accuracy`` (a fraction), and ``seconds`` and ``cpu_seconds`` of the training without the scoring; on a
        busy machine the latter are the ones to compare.
    """
    model.train()
    wall, cpu = time.perf_counter(), time.process_time()
    for number, batch in enumerate(train, start=1):
        optimizer.zero_grad()
        loss = step((batch[0], batch[1]), model)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if number == max_steps:
            break
    spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    return {"test_accuracy": accuracy(model, test), **spent}


def accuracy(model: nn.Module, batches: Batches) -> float:
    """Accuracy of the module in PyTorch, as a fraction."""
    model.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in batches:
            right += int((model(images).argmax(dim=1) == labels).sum())
            total += len(labels)
    return right / total


def summary(epochs: list[dict[str, float]]) -> dict[str, Any]:
    """Total times of epochs, and the accuracy of the last and of the best epoch."""
    return {
        "test_accuracy_last": epochs[-1]["test_accuracy"],
        # The figure of the tutorial: it is selected on the test split, and so too high.
        "test_accuracy_best_on_test": max(row["test_accuracy"] for row in epochs),
        "seconds": sum(row["seconds"] for row in epochs),
        "cpu_seconds": sum(row["cpu_seconds"] for row in epochs),
        "epochs": epochs,
    }


def setting(data: Dataset, train: Batches, test: Batches, seed: int) -> dict[str, Any]:
    """The setting of a measurement."""
    return {
        "data": data.name,
        "train_images": len(train.dataset),  # type: ignore[arg-type]
        "test_images": len(test.dataset),  # type: ignore[arg-type]
        "training": DESCRIPTION,
        "batch": train.batch_size,
        "threads": torch.get_num_threads(),
        "seed": seed,
    }


def params(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences NNI's warnings about newer packages and its log of each layer."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
