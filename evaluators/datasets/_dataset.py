"""Data sets: examples and targets in three splits, normalized in batches."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from slimsearch.errors import SlimsearchError, escaped, reason
from slimsearch.evaluators.datasets._columns import Column, Table, columns_from, described
from slimsearch.evaluators.datasets._fields import Field, fields_from, positions
from slimsearch.evaluators.datasets._fields import described as described_fields
from slimsearch.evaluators.datasets._pictures import are_pictures, picture_url, pictures
from slimsearch.evaluators.datasets._stored import Inputs, StoredInputs, link
from slimsearch.evaluators.tasks import Classification, LearningTask
from slimsearch.html_table import facts_table, listed
from slimsearch.reading import mismatch, read_json

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

_THUMBNAILS = 10
_HASHED = 64  # examples that are read at a time
_LARGEST_BATCH = 64 * 2**20  # bytes of float32
WHITE = 65535
"""Value of white in images of integers with more than 8 bits, unless the images of a data set have fewer bits."""

_DIMENSIONS = {1: ("F",), 2: ("C", "L"), 3: ("C", "H", "W"), 4: ("C", "D", "H", "W")}  # of an example, by their number
_DESCRIPTION = {
    "name": str, "classes": [str], "mean": [float], "std": [float], "augmentation": str, "white?": int,
    "columns?": object, "inputs?": object,
}  # fmt: skip


def _shape(sizes: Sequence[int]) -> str:
    """``1 x 28 x 28``"""
    return " x ".join(map(str, sizes))


@dataclass(frozen=True, repr=False)
class Split:
    """Examples with their targets.

    Attributes:
        inputs: (N, C, H, W) images, (N, C, L) signals, (N, F) tables, or any (N, ...); uint8 or float32. Inputs on disk
            are read when they are indexed.
        targets: (N, ...), as the `LearningTask` reads them, such as (N,) int64 of classes.
    """

    inputs: Inputs
    targets: Array

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        return f"<Split: {len(self):,} examples of {_shape(self.inputs.shape[1:])}, {self.inputs.dtype}>"

    def _repr_html_(self) -> str:
        shape = _shape(self.targets.shape[1:])
        facts = [
            ("examples", f"{len(self):,}"),
            ("input", f"{_shape(self.inputs.shape[1:])}, {self.inputs.dtype}"),
            ("target", f"{shape}, {self.targets.dtype}" if shape else str(self.targets.dtype)),
            ("file", _file(self)),
        ]
        first = range(min(len(self), _THUMBNAILS))
        return facts_table(facts, _thumbnails(self, {f"example {i}": i for i in first}))

    @property
    def images(self) -> Inputs:
        """The inputs, as they were called when all of them were images."""
        return self.inputs

    @property
    def labels(self) -> Array:
        """The targets, as they were called when all of them were classes."""
        return self.targets


@dataclass(frozen=True)
class Raw:
    """Examples and targets as a source provides them, before they are split.

    Attributes:
        inputs, targets: see `Split`; the targets as the task of the data set reads them.
        classes: names of the outputs: classes in the order of the labels, or target columns.
        validation, test: the source's own splits, or None.
        augmentation: "none", "shift" or "shift-flip", as far as it keeps the targets valid.
        white: value of white in image files with more than 8 bits.
        notes: one line for everything that was skipped or assumed while reading.
        groups: (N,) int64, the group of each training example; those of one are in one split. None: no groups.
        table: what the columns of the inputs are, if these are values of a `Table`: they become inputs of networks when
            the training split is known.
        fields: the several inputs of an example, which are packed; () for one.
    """

    inputs: Inputs
    targets: Array
    classes: tuple[str, ...]
    test: Split | None = None
    augmentation: str = "shift"
    validation: Split | None = None
    white: int = WHITE
    notes: tuple[str, ...] = ()
    groups: Array | None = None
    table: Table | None = None
    fields: tuple[Field, ...] = ()


class Source(Protocol):
    """A named data set: one class in one file of this folder."""

    def read(self, root: Path | None, download: bool) -> Raw:
        """Read the data set into memory.

        Args:
            root: folder of its files, unless a Python package ships them.
            download: download missing files into `root`.
        """


@dataclass(frozen=True, repr=False)
class Dataset:
    """Three splits, the task that is learned, and the normalization of inputs.

    Attributes:
        classes: names of the outputs: classes in the order of the labels, or target columns.
        test: None in workers, so that a search cannot use it.
        mean, std: per channel (or column of a table) of the training inputs; of value / 255 for uint8. Of several
            inputs, of the channels of each in turn.
        augmentation: "none", "shift" or "shift-flip".
        white: value of white in image files with more than 8 bits.
        notes: one line for everything that was skipped, assumed or found while reading, such as duplicates.
        task: fitted to the training targets.
        columns: of a table, which become the inputs.
        fields: the several inputs of an example, whose values are side by side in `Split.inputs`; () for one.
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
    task: LearningTask = field(default_factory=Classification)
    columns: tuple[Column, ...] = ()
    fields: tuple[Field, ...] = ()

    def __repr__(self) -> str:
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        sizes = ", ".join(f"{name} {len(split):,}" for name, split in splits.items() if split is not None)
        name = escaped(self.name)
        return f"<Dataset '{name}': {sizes}; {_shape(self.input_shape)}, {len(self.classes)} outputs>"

    def _repr_html_(self) -> str:
        splits = {"training": self.train, "validation": self.validation, "test": self.test}
        shape = ", ".join(f"{one.name} {_shape(one.shape)}" for one in self.fields) or _shape(self.input_shape)
        classified = isinstance(self.task, Classification)
        facts = [
            ("data set", self.name),
            ("task", self.task.name),
            *((f"{name} examples", f"{len(split):,}") for name, split in splits.items() if split is not None),
            ("input", f"{shape}, {self.train.inputs.dtype}"),
            ("columns", listed([column.name for column in self.columns])),
            ("classes" if classified else "outputs", listed(self.classes)),
            ("augmentation", self.augmentation),
            ("file", _file(self.train)),
            *(("note", note) for note in self.notes),
        ]
        first: dict[str, int] = {}
        if classified and self.train.targets.ndim == 1:
            labels, examples = np.unique(self.train.targets, return_index=True)
            known = range(len(self.classes))
            first = {self.classes[label]: int(i) for label, i in zip(labels, examples, strict=True) if label in known}
        return facts_table(facts, _thumbnails(self.train, first))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example, such as (C, H, W) of an image."""
        return tuple(map(int, self.train.inputs.shape[1:]))

    @property
    def space_shape(self) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
        """What a space is told of the inputs: the shape of an example, or of each of several inputs by its name."""
        return {field.name: field.shape for field in self.fields} if self.fields else self.input_shape

    @property
    def fingerprint(self) -> str:
        """Hash of the inputs and targets of all splits."""
        splits = [split for split in (self.train, self.validation, self.test) if split is not None]
        first = splits[0].inputs
        if isinstance(first, StoredInputs):
            rows = [split.inputs.rows for split in splits if isinstance(split.inputs, StoredInputs)]
            files = [str(split.inputs.file).encode() for split in splits if isinstance(split.inputs, StoredInputs)]
            parts = [*rows, np.frombuffer(b"\0".join(files), np.uint8), *(split.targets for split in splits)]
            return first.remember("fingerprint", parts, lambda: _fingerprint(splits))
        return _fingerprint(splits)

    def normalise(self, inputs: Array) -> Tensor:
        """(N, ...) uint8 or float32 -> float32, the input of networks and exported files.

        ``(value / 255 - mean) / std`` for uint8, and ``(value - mean) / std`` otherwise.
        """
        import torch

        return self.normalised(torch.from_numpy(np.array(inputs)))  # a copy, since mapped inputs are read-only

    def normalised(self, inputs: Tensor) -> Tensor:
        """`normalise` of a tensor, on its device."""
        import torch

        shape = (1, -1, *[1] * (inputs.ndim - 2))
        mean, std = (torch.tensor(values, device=inputs.device) for values in (self.mean, self.std))
        if self.fields:
            counts = torch.from_numpy(positions(self.fields)).to(inputs.device)
            mean, std = mean.repeat_interleave(counts), std.repeat_interleave(counts)
        mean, std = mean.view(shape), std.view(shape)
        batch = inputs.float()
        if inputs.dtype == torch.uint8:
            batch.div_(255)
        return (batch - mean if batch is inputs else batch.sub_(mean)).div_(std)

    def batches(self, split: Split, size: int = 64) -> Iterator[tuple[Tensor, Array]]:
        """Batches of normalized inputs and targets of `split`, in order; smaller ones of large inputs."""
        size = min(size, max(1, _LARGEST_BATCH // (4 * math.prod(self.input_shape))))
        for start in range(0, len(split), size):
            yield self.normalise(split.inputs[start : start + size]), split.targets[start : start + size]

    def without_test(self) -> Dataset:
        """A copy without the test split, for workers."""
        return replace(self, test=None)

    def metadata(self) -> dict[str, str]:
        """Metadata of an exported file: how examples become its input, and what its output means."""
        shape = ", ".join(("N", *_DIMENSIONS.get(len(self.input_shape), ("...",))))
        value = "value" if len(self.input_shape) != 3 else "pixel"
        if self.train.inputs.dtype == np.uint8:
            value += " / 255"
        task = {"name": self.task.name, **self.task.metadata()}
        read = f"float32 ({shape}): ({value} - mean) / std"
        if self.fields:
            shapes = ", ".join(f"{field.name} (N, {', '.join(map(str, field.shape))})" for field in self.fields)
            read = f"float32 {shapes}: (value, or byte / 255, - mean) / std, of the channels of each in turn"
        return {
            "input": read,
            "mean": json.dumps([round(m, 6) for m in self.mean]),
            "std": json.dumps([round(s, 6) for s in self.std]),
            "classes": json.dumps(list(self.classes)),
            **({} if isinstance(self.task, Classification) else {"task": json.dumps(task)}),
            **({} if self.white == WHITE else {"white": json.dumps(self.white)}),
            **({"columns": json.dumps(described(self.columns))} if self.columns else {}),
            **({"inputs": json.dumps(described_fields(self.fields))} if self.fields else {}),
            **({"outputs": json.dumps(dict(self.task.outputs))} if self.task.outputs else {}),
        }

    def normalised_by(self, mean: Sequence[float], std: Sequence[float]) -> Dataset:
        """A copy with another normalization: one number for all channels, or one for each.

        Raises:
            SlimsearchError: there are other numbers of them, a deviation is not above 0, or one is not finite.
        """
        channels = len(self.mean)
        for name, values in (("--mean", mean), ("--std", std)):
            if len(values) not in (1, channels) or not np.isfinite(values).all():
                raise SlimsearchError(f"{name} has {len(values)} numbers, the inputs have {channels} channels")
        if min(std) <= 0:
            raise SlimsearchError(f"--std {min(std):g} is not above 0")
        means, deviations = (tuple(map(float, np.broadcast_to(values, channels))) for values in (mean, std))
        return replace(self, mean=means, std=deviations)

    def in_color(self) -> Dataset:
        """A copy of grey images with three equal channels, which take no more memory."""

        def repeated(split: Split) -> Split:
            if isinstance(split.inputs, StoredInputs):
                return Split(split.inputs.repeated(3), split.targets)
            count, _, *size = split.inputs.shape
            return Split(np.broadcast_to(split.inputs, (count, 3, *size)), split.targets)

        return replace(
            self, train=repeated(self.train), validation=repeated(self.validation),
            test=None if self.test is None else repeated(self.test), mean=self.mean * 3, std=self.std * 3,
        )  # fmt: skip

    def save(self, directory: Path) -> None:
        """Write the data set without its test split into `directory`, for `load` in other processes."""
        directory.mkdir(parents=True, exist_ok=True)
        for label, split in (("train", self.train), ("validation", self.validation)):
            if isinstance(split.inputs, StoredInputs):  # no copy: another name of the file, and the rows
                link(split.inputs.file, directory / f"{label}_inputs.npy")
                np.save(directory / f"{label}_rows.npy", split.inputs.rows)
            else:
                np.save(directory / f"{label}_inputs.npy", split.inputs, allow_pickle=False)
            np.save(directory / f"{label}_targets.npy", split.targets, allow_pickle=False)
        rest = {
            "name": self.name, "classes": self.classes, "mean": self.mean, "std": self.std,
            "augmentation": self.augmentation, "white": self.white, "columns": described(self.columns),
            "inputs": described_fields(self.fields),
        }  # fmt: skip
        (directory / "dataset.json").write_text(json.dumps(rest), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, task: LearningTask) -> Dataset:
        """Load a saved data set with its `task`; inputs are memory-mapped, so that all workers share one copy.

        Raises:
            SlimsearchError: a file is missing or damaged.
        """
        rest = read_json(directory / "dataset.json")
        wrong = mismatch(rest, _DESCRIPTION)
        if wrong is not None:
            raise SlimsearchError(f"'{directory / 'dataset.json'}' is damaged: {wrong}")
        try:
            train, validation = (
                Split(_loaded(directory, label), np.load(directory / f"{label}_targets.npy", allow_pickle=False))
                for label in ("train", "validation")
            )
        except (OSError, ValueError, EOFError) as error:
            raise SlimsearchError(f"cannot read the data set in '{directory}': {reason(error)}") from error
        return cls(
            name=rest["name"], classes=tuple(rest["classes"]), train=train, validation=validation, test=None,
            mean=tuple(rest["mean"]), std=tuple(rest["std"]), augmentation=rest["augmentation"],
            white=rest.get("white", WHITE), task=task, columns=columns_from(rest.get("columns", [])),
            fields=fields_from(rest.get("inputs", {})),
        )  # fmt: skip


def _file(split: Split) -> str:
    return str(split.inputs.file) if isinstance(split.inputs, StoredInputs) else ""


def _thumbnails(split: Split, examples: Mapping[str, int]) -> list[tuple[str, str]]:
    """URL and name of the pictures of the first few `examples`, by name; none if they are no images."""
    if not are_pictures(split.inputs.shape[1:]):
        return []
    found = []
    with contextlib.suppress(SlimsearchError, OSError):  # the file has changed or is gone
        for name, index in itertools.islice(examples.items(), _THUMBNAILS):
            found.append((picture_url(pictures(split.inputs[index : index + 1])[0]), name))
    return found


def _fingerprint(splits: Sequence[Split]) -> str:
    digest = hashlib.sha256()
    for split in splits:
        for start in range(0, len(split), _HASHED):
            digest.update(np.ascontiguousarray(split.inputs[start : start + _HASHED]).data)
        digest.update(np.ascontiguousarray(split.targets).data)
    return digest.hexdigest()[:16]


def _loaded(directory: Path, label: str) -> Inputs:
    file, rows = directory / f"{label}_inputs.npy", directory / f"{label}_rows.npy"
    if rows.is_file():
        return StoredInputs(file, np.load(rows, allow_pickle=False))
    found: Array = np.load(file, mmap_mode="r", allow_pickle=False)
    return found
