"""A data set in memory: uint8 images in three splits, normalised a batch at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from slimsearch.errors import SlimsearchError, first_line
from slimsearch.reading import mismatch, read_json

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

# The split never depends on the seed of a run: runs on one data set can be compared.
_SPLIT_SEED = 0
_VALIDATION_OF_TRAIN = 0.1  # where the data set has a test split of its own
_DESCRIPTION = {"name": str, "classes": [str], "mean": [float], "std": [float], "augmentation": str}
_VALIDATION_OF_ALL = _TEST_OF_ALL = 0.15  # where it has none


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8 and labels (N,) int64."""

    images: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Raw:
    """What a source reads: one set of images, or two where it has a test set of its own.

    Attributes:
        images, labels: (N, C, H, W) uint8 and (N,) int64.
        classes: the class names, in the order of the labels.
        test: the source's own test set, or None.
        augmentation: what leaves the label as it is: "none", "shift" or "shift-flip".
    """

    images: Array
    labels: Array
    classes: tuple[str, ...]
    test: Split | None = None
    augmentation: str = "shift"


class Source(Protocol):
    """A named data set: one file in this folder, one class."""

    def read(self, root: Path | None, download: bool) -> Raw:
        """All of it, in memory.

        Args:
            root: where its files are, for those that are not shipped with a package.
            download: fetch them there if they are missing.
        """


@dataclass(frozen=True)
class Dataset:
    """Three splits, with what is needed to turn images into the input of a network.

    Attributes:
        test: None in workers: a search has no access to the test split.
        mean, std: of each channel of the training images, in units of pixel / 255.
        augmentation: "none", "shift" or "shift-flip".
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: str

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return int(channels), int(height), int(width)

    @property
    def fingerprint(self) -> str:
        """Hash of all images and labels, in their splits."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            if split is not None:
                digest.update(np.ascontiguousarray(split.images).tobytes())
                digest.update(np.ascontiguousarray(split.labels).tobytes())
        return digest.hexdigest()[:16]

    def normalise(self, images: Array) -> Tensor:
        """(N, C, H, W) uint8 -> float32, ``(pixel / 255 - mean) / std``: the input of every exported file."""
        import torch

        mean = torch.tensor(self.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.std).view(1, -1, 1, 1)
        batch = torch.from_numpy(np.array(images)).float()  # a copy: images may be mapped read-only
        return (batch / 255 - mean) / std

    def batches(self, split: Split, size: int = 256) -> Iterator[tuple[Tensor, Array]]:
        """Normalised images and labels of `split`, in order."""
        for start in range(0, len(split), size):
            yield self.normalise(split.images[start : start + size]), split.labels[start : start + size]

    def without_test(self) -> Dataset:
        """The same without its test split: what workers get."""
        return replace(self, test=None)

    def metadata(self) -> dict[str, str]:
        """What someone who has only an exported file needs to use it."""
        return {
            "input": "float32 (N, C, H, W): (pixel / 255 - mean) / std",
            "mean": json.dumps([round(m, 6) for m in self.mean]),
            "std": json.dumps([round(s, 6) for s in self.std]),
            "classes": json.dumps(list(self.classes)),
        }

    def save(self, directory: Path) -> None:
        """Write everything but the test split into `directory`, for `load` in other processes."""
        directory.mkdir(parents=True, exist_ok=True)
        for label, split in (("train", self.train), ("validation", self.validation)):
            np.save(directory / f"{label}_images.npy", split.images, allow_pickle=False)
            np.save(directory / f"{label}_labels.npy", split.labels, allow_pickle=False)
        rest = {
            "name": self.name, "classes": self.classes, "mean": self.mean, "std": self.std,
            "augmentation": self.augmentation,
        }  # fmt: skip
        (directory / "dataset.json").write_text(json.dumps(rest), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Dataset:
        """What `save` wrote; the images are mapped from disk, so that all workers share one copy in memory.

        Raises:
            SlimsearchError: a file is missing or damaged.
        """
        rest = read_json(directory / "dataset.json")
        wrong = mismatch(rest, _DESCRIPTION)
        if wrong is not None:
            raise SlimsearchError(f"'{directory / 'dataset.json'}' is damaged: {wrong}")
        try:
            train, validation = (
                Split(
                    np.load(directory / f"{label}_images.npy", mmap_mode="r", allow_pickle=False),
                    np.load(directory / f"{label}_labels.npy", allow_pickle=False),
                )
                for label in ("train", "validation")
            )
        except (OSError, ValueError, EOFError) as error:
            raise SlimsearchError(f"cannot read the data set in '{directory}': {first_line(error)}") from error
        return cls(
            name=rest["name"], classes=tuple(rest["classes"]), train=train, validation=validation, test=None,
            mean=tuple(rest["mean"]), std=tuple(rest["std"]), augmentation=rest["augmentation"],
        )  # fmt: skip


def split(raw: Raw, name: str, image_size: int | None = None) -> Dataset:
    """Divide what a source read: fixed, seeded, stratified by class.

    With a test set of its own, a tenth of the rest is for validation; without, 15% each are for validation and
    test.

    Raises:
        SlimsearchError: there is too little to divide.
    """
    images, test = raw.images, raw.test
    if image_size is not None:
        images = _resized(images, image_size)
        test = Split(_resized(test.images, image_size), test.labels) if test is not None else None
    counts = np.bincount(raw.labels, minlength=len(raw.classes))
    if len(raw.classes) < 2:
        raise SlimsearchError(f"data set '{name}' has {len(raw.classes)} class; at least 2 are needed")
    if counts.min() < 3:
        scarce = raw.classes[int(counts.argmin())]
        raise SlimsearchError(f"data set '{name}': class '{scarce}' has {counts.min()} images; at least 3 are needed")
    fractions = (_VALIDATION_OF_TRAIN,) if test is not None else (_VALIDATION_OF_ALL, _TEST_OF_ALL)
    train, *held_out = _stratified(raw.labels, fractions)
    train_images = images[train]
    mean, std = _statistics(train_images)
    if test is None:
        test = Split(images[held_out[1]], raw.labels[held_out[1]])
    return Dataset(
        name=name,
        classes=raw.classes,
        train=Split(train_images, raw.labels[train]),
        validation=Split(images[held_out[0]], raw.labels[held_out[0]]),
        test=test,
        mean=mean,
        std=std,
        augmentation=raw.augmentation,
    )


def _stratified(labels: Array, fractions: tuple[float, ...]) -> list[Array]:
    """Indices of the rest, then of one part for each fraction; every class is divided alike."""
    rng = np.random.default_rng(_SPLIT_SEED)
    parts: list[list[Array]] = [[] for _ in range(len(fractions) + 1)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        start = 0
        for position, fraction in enumerate(fractions, start=1):
            size = max(1, round(len(members) * fraction))
            parts[position].append(members[start : start + size])
            start += size
        parts[0].append(members[start:])
    return [np.sort(np.concatenate(part)) for part in parts]


def _statistics(images: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = [], []
    for channel in range(images.shape[1]):
        counts = np.bincount(images[:, channel].ravel(), minlength=256)
        values = np.arange(256) / 255
        average = float((counts * values).sum() / counts.sum())
        variance = float((counts * (values - average) ** 2).sum() / counts.sum())
        mean.append(average)
        std.append(max(variance**0.5, 1e-3))
    return tuple(mean), tuple(std)


def _resized(images: Array, size: int) -> Array:
    import torch
    import torch.nn.functional as F

    if images.shape[2:] == (size, size):
        return images
    parts = []
    for start in range(0, len(images), 1024):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + 1024])).float()
        batch = F.interpolate(batch, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        parts.append(batch.round().clamp(0, 255).to(torch.uint8).numpy())
    return np.concatenate(parts)
