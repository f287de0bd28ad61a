"""Data sets in memory: uint8 images in three splits, normalized in batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from slimsearch.errors import SlimsearchError, first_line
from slimsearch.reading import mismatch, read_json

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

WHITE = 65535
"""Value of white in images of integers with more than 8 bits, unless the images of a data set have fewer bits."""

_DESCRIPTION = {"name": str, "classes": [str], "mean": [float], "std": [float], "augmentation": str, "white?": int}


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
        validation, test: the source's own splits, or None.
        augmentation: "none", "shift" or "shift-flip", as far as it keeps the labels valid.
        white: value of white in image files with more than 8 bits.
        notes: one line for everything that was skipped or assumed while reading.
    """

    images: Array
    labels: Array
    classes: tuple[str, ...]
    test: Split | None = None
    augmentation: str = "shift"
    validation: Split | None = None
    white: int = WHITE
    notes: tuple[str, ...] = ()


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
        white: value of white in image files with more than 8 bits.
        notes: one line for everything that was skipped, assumed or found while reading, such as duplicates.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: str
    white: int = WHITE
    notes: tuple[str, ...] = ()

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
                digest.update(np.ascontiguousarray(split.images).data)
                digest.update(np.ascontiguousarray(split.labels).data)
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
            **({} if self.white == WHITE else {"white": json.dumps(self.white)}),
        }

    def normalised_by(self, mean: Sequence[float], std: Sequence[float]) -> Dataset:
        """A copy with another normalization: one number for all channels, or one for each.

        Raises:
            SlimsearchError: there are other numbers of them, a deviation is not above 0, or one is not finite.
        """
        channels = self.input_shape[0]
        for name, values in (("--mean", mean), ("--std", std)):
            if len(values) not in (1, channels) or not np.isfinite(values).all():
                raise SlimsearchError(f"{name} has {len(values)} numbers, the images have {channels} channels")
        if min(std) <= 0:
            raise SlimsearchError(f"--std {min(std):g} is not above 0")
        means, deviations = (tuple(map(float, np.broadcast_to(values, channels))) for values in (mean, std))
        return replace(self, mean=means, std=deviations)

    def in_color(self) -> Dataset:
        """A copy of grey images with three equal channels, which take no more memory."""

        def repeated(split: Split) -> Split:
            count, _, height, width = split.images.shape
            return Split(np.broadcast_to(split.images, (count, 3, height, width)), split.labels)

        return replace(
            self, train=repeated(self.train), validation=repeated(self.validation),
            test=None if self.test is None else repeated(self.test), mean=self.mean * 3, std=self.std * 3,
        )  # fmt: skip

    def save(self, directory: Path) -> None:
        """Write the data set without its test split into `directory`, for `load` in other processes."""
        directory.mkdir(parents=True, exist_ok=True)
        for label, split in (("train", self.train), ("validation", self.validation)):
            np.save(directory / f"{label}_images.npy", split.images, allow_pickle=False)
            np.save(directory / f"{label}_labels.npy", split.labels, allow_pickle=False)
        rest = {
            "name": self.name, "classes": self.classes, "mean": self.mean, "std": self.std,
            "augmentation": self.augmentation, "white": self.white,
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
            white=rest.get("white", WHITE),
        )  # fmt: skip
