"""Data sets in memory: uint8 images in three splits, normalized in batches."""

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

# The same for every run, whatever its seed: runs on one data set are comparable.
_SPLIT_SEED = 0
_VALIDATION_OF_TRAIN = 0.1  # if the source has its own test set
_VALIDATION_OF_ALL = _TEST_OF_ALL = 0.15  # otherwise
_DESCRIPTION = {"name": str, "classes": [str], "mean": [float], "std": [float], "augmentation": str}


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8 and labels (N,) int64."""

    images: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Raw:
    """Images and labels as a source provides them, before they are split.

    Attributes:
        images, labels: (N, C, H, W) uint8 and (N,) int64.
        classes: class names, in the order of the labels.
        test: the source's own test set, or None.
        augmentation: "none", "shift" or "shift-flip", as far as it keeps the labels valid.
    """

    images: Array
    labels: Array
    classes: tuple[str, ...]
    test: Split | None = None
    augmentation: str = "shift"


class Source(Protocol):
    """A named data set: one class in one file of this folder."""

    def read(self, root: Path | None, download: bool) -> Raw:
        """Read the data set into memory.

        Args:
            root: folder of its files, unless a Python package ships them.
            download: download missing files into `root`.
        """


@dataclass(frozen=True)
class Dataset:
    """Three splits, class names, and the normalization of images.

    Attributes:
        test: None in workers, so that a search cannot use it.
        mean, std: per channel of the training images, of pixel / 255.
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
        """Hash of the images and labels of all splits."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            if split is not None:
                digest.update(np.ascontiguousarray(split.images).tobytes())
                digest.update(np.ascontiguousarray(split.labels).tobytes())
        return digest.hexdigest()[:16]

    def normalise(self, images: Array) -> Tensor:
        """(N, C, H, W) uint8 -> float32, ``(pixel / 255 - mean) / std``: the input of networks and exported files."""
        import torch

        mean = torch.tensor(self.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.std).view(1, -1, 1, 1)
        batch = torch.from_numpy(np.array(images)).float()  # a copy, since mapped images are read-only
        return (batch / 255 - mean) / std

    def batches(self, split: Split, size: int = 256) -> Iterator[tuple[Tensor, Array]]:
        """Batches of normalized images and labels of `split`, in order."""
        for start in range(0, len(split), size):
            yield self.normalise(split.images[start : start + size]), split.labels[start : start + size]

    def without_test(self) -> Dataset:
        """A copy without the test split, for workers."""
        return replace(self, test=None)

    def metadata(self) -> dict[str, str]:
        """Metadata of an exported file: how images become its input, and the names of its classes."""
        return {
            "input": "float32 (N, C, H, W): (pixel / 255 - mean) / std",
            "mean": json.dumps([round(m, 6) for m in self.mean]),
            "std": json.dumps([round(s, 6) for s in self.std]),
            "classes": json.dumps(list(self.classes)),
        }

    def save(self, directory: Path) -> None:
        """Write the data set without its test split into `directory`, for `load` in other processes."""
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
        """Load a saved data set; images are memory-mapped, so that all workers share one copy.

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
    """Split a data set, stratified by class; the same split for every run.

    If the source has its own test set, 10% of the rest is for validation; otherwise 15% each for validation and test.

    Args:
        raw: the images.
        name: of the data set.
        image_size: side in pixels that images are resized to; None: unchanged.

    Raises:
        SlimsearchError: there are fewer than 2 classes, or fewer than 3 images of a class.
    """
    images, test = raw.images, raw.test
    if image_size is not None:
        images = _resized(images, image_size)
        test = Split(_resized(test.images, image_size), test.labels) if test is not None else None
    if test is not None and test.images.shape[1:] != images.shape[1:]:
        raise SlimsearchError(
            f"data set '{name}': images have the shape {images.shape[1:]}, test images {test.images.shape[1:]}"
        )
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
    """Indices of the remaining images, then of one part per fraction, each with the same share of every class."""
    rng = np.random.default_rng(_SPLIT_SEED)
    indices: list[list[Array]] = [[] for _ in range(len(fractions) + 1)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        start = 0
        for position, fraction in enumerate(fractions, start=1):
            size = max(1, round(len(members) * fraction))
            indices[position].append(members[start : start + size])
            start += size
        indices[0].append(members[start:])
    return [np.sort(np.concatenate(arrays)) for arrays in indices]


def _statistics(images: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixel / 255."""
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
    batches = []
    for start in range(0, len(images), 1024):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + 1024])).float()
        batch = F.interpolate(batch, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        batches.append(batch.round().clamp(0, 255).to(torch.uint8).numpy())
    return np.concatenate(batches)
