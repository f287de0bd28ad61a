"""The three splits of a data set: stratified, the same for every run, without copies of one image in two of them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from slimsearch.errors import SlimsearchError, escaped
from slimsearch.evaluators.datasets._dataset import Array, Dataset, Raw, Split
from slimsearch.evaluators.datasets._memory import memory_for

_log = logging.getLogger(__name__)

# The same for every run, whatever its seed: runs on one data set are comparable.
_SPLIT_SEED = 0
_OF_TRAIN = 0.1  # if the source has its own validation or test images
_OF_ALL = 0.15  # otherwise, each for validation and test
_BATCH = 64  # images that are copied as floats or as int64 at the same time


def split(raw: Raw, name: str, image_size: int | None = None, *, drop_duplicates: bool = False) -> Dataset:
    """Split a data set, stratified by class; the same split for every run.

    Splits of the source are kept. If it has neither validation nor test images, 15% each are taken for them; if it has
    one of them, 10% of the rest are taken for the other. Copies of one image are never separated by that. Copies in
    several splits of the source are reported in a log line.

    Args:
        raw: the images.
        name: of the data set.
        image_size: side in pixels that images are resized to; None: unchanged.
        drop_duplicates: keep one copy of each image outside of the test images: in validation if it is there, and none
            if it is a test image.

    Raises:
        SlimsearchError: there are fewer than 2 classes, too few images of a class, images of one value only, or the
            splits have different shapes.
    """
    train, validation, test = (
        _resized(part, image_size, name) if part is not None else None
        for part in (Split(raw.images, raw.labels), raw.validation, raw.test)
    )
    assert train is not None
    _check(raw, name, train, validation, test)
    notes: list[str] = []
    if drop_duplicates:
        before = sum(map(len, filter(None, (train, validation))))
        train, validation = _without_duplicates(train, validation, test)
        if dropped := before - sum(map(len, filter(None, (train, validation)))):
            notes.append(f"{dropped:,} duplicates dropped")
    copies = 1 if validation is None or test is None else 0
    with memory_for(name, len(train), train.images.shape[1:], copies):
        found = _split(raw, name, train, validation, test)
        assert found.test is not None
        copied = _copies({"training": found.train, "validation": found.validation, "test": found.test})
    notes += [copied] if copied is not None else []
    for note in notes:
        _log.warning("data set '%s': %s", escaped(str(name)), note)
    return replace(found, notes=(*raw.notes, *notes))


def _split(raw: Raw, name: str, train: Split, validation: Split | None, test: Split | None) -> Dataset:
    missing = [part for part, given in (("validation", validation), ("test", test)) if given is None]
    train, *held_out = _held_out(train, raw.classes, name, _OF_ALL if len(missing) == 2 else _OF_TRAIN, len(missing))
    parts = {"training": train, "validation": validation, "test": test, **dict(zip(missing, held_out, strict=True))}
    train, validation, test = (part for part in parts.values() if part is not None)
    mean, std = _statistics(train.images)
    return Dataset(name, raw.classes, train, validation, test, mean, std, raw.augmentation, raw.white)


def _check(raw: Raw, name: str, train: Split, *others: Split | None) -> None:
    for part, other in zip(("validation", "test"), others, strict=True):
        if other is not None and other.images.shape[1:] != train.images.shape[1:]:
            raise SlimsearchError(
                f"data set '{name}': images have the shape {train.images.shape[1:]}, {part} images "
                f"{other.images.shape[1:]}"
            )
    if len(raw.classes) < 2:
        raise SlimsearchError(f"data set '{name}' has {len(raw.classes)} class; at least 2 are needed")
    low, high = train.images.min(initial=255), train.images.max(initial=0)
    if low >= high:
        raise SlimsearchError(f"data set '{name}': every pixel of all training images is {high} (of 0 to 255)")


def _without_duplicates(train: Split, validation: Split | None, test: Split | None) -> tuple[Split, Split | None]:
    """Training and validation images without those of the later splits, and one copy of each."""
    taken = set() if test is None else set(_keys(test.images))
    kept: list[Split | None] = []
    for part in (validation, train):
        if part is None:
            kept.append(None)
            continue
        chosen = []
        for index, key in enumerate(_keys(part.images)):
            if key not in taken:
                taken.add(key)
                chosen.append(index)
        kept.append(_subset(part, np.array(chosen, dtype=np.int64)))
    first, second = kept
    assert second is not None
    return second, first


def _held_out(train: Split, classes: Sequence[str], name: str, fraction: float, count: int) -> list[Split]:
    """The remaining images, then `count` parts with `fraction` of every class.

    Copies of an image are in one part, unless the class has too few different images.
    """
    keys = _keys(train.images)
    numbers = np.bincount(train.labels, minlength=len(classes))
    scarce = int(numbers.argmin())
    if numbers[scarce] <= count:
        raise SlimsearchError(
            f"data set '{name}': class '{classes[scarce]}' has {numbers[scarce]} images; "
            f"at least {count + 1} are needed"
        )
    if count == 0:
        return [train]
    rng = np.random.default_rng(_SPLIT_SEED)
    part_of: dict[bytes, int] = {}
    for label in range(len(classes)):
        members = rng.permutation(np.flatnonzero(train.labels == label)).tolist()
        size = max(1, round(len(members) * fraction))
        assigned = _assigned([keys[index] for index in members], part_of, size, count)
        if len({assigned[keys[index]] for index in members}) <= count:  # too few different images for every part
            for index in members:
                keys[index] += index.to_bytes(8)
            assigned = _assigned([keys[index] for index in members], part_of, size, count)
        part_of = assigned
    parts = np.array([part_of[key] for key in keys])
    return [_subset(train, np.flatnonzero(parts == number)) for number in range(count + 1)]


def _assigned(members: Sequence[bytes], part_of: dict[bytes, int], size: int, count: int) -> dict[bytes, int]:
    """`part_of` with the images of one more class: `size` in each of the parts 1 to `count`, the rest in part 0.

    Images of another class that are the same stay where they are.
    """
    part_of = dict(part_of)
    copies: dict[bytes, int] = {}
    for key in members:
        copies[key] = copies.get(key, 0) + 1
    for part in range(1, count + 1):
        left = size - sum(copies[key] for key in copies if part_of.get(key) == part)
        free = [key for key in copies if key not in part_of]
        spare = len(free) - (count - part + 1)  # one image is for each later part, and one for part 0
        chosen: list[bytes] = []
        for key in free:
            if copies[key] <= left and len(chosen) < spare:
                chosen.append(key)
                left -= copies[key]
        if left == size and free:
            chosen.append(min(free, key=copies.__getitem__))
        part_of.update(dict.fromkeys(chosen, part))
    for key in copies:
        part_of.setdefault(key, 0)
    return part_of


def _copies(parts: dict[str, Split]) -> str | None:
    """A line about images that are copies of others, or None."""
    keys = {part: _keys(images.images) for part, images in parts.items()}
    labels: dict[bytes, set[int]] = {}
    for part, images in parts.items():
        for key, label in zip(keys[part], images.labels.tolist(), strict=True):
            labels.setdefault(key, set()).add(label)
    total = sum(map(len, keys.values()))
    if len(labels) == total:
        return None
    lines = [f"{total - len(labels):,} of {total:,} images are copies of others"]
    shared = []
    for earlier, later in combinations(parts, 2):
        known = set(keys[earlier])
        if found := sum(key in known for key in keys[later]):
            shared.append(f"{found:,} of {len(keys[later]):,} {later} images are {earlier} images too")
    lines += [*shared, "--drop-duplicates removes them"] if shared else ["copies of an image are in one split"]
    if ambiguous := sum(len(found) > 1 for found in labels.values()):
        lines.append(f"{ambiguous:,} images are in more than one class")
    return "; ".join(lines)


def _keys(images: Array) -> list[bytes]:
    """A hash of the pixels of each image."""
    return [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images]


def _subset(part: Split, chosen: Array) -> Split:
    if len(chosen) == len(part):
        return part
    return Split(part.images[chosen], part.labels[chosen])


def _statistics(images: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixel / 255."""
    mean, std = [], []
    values = np.arange(256) / 255
    for channel in range(images.shape[1]):
        counts = np.zeros(256, dtype=np.int64)
        for start in range(0, len(images), _BATCH):
            counts += np.bincount(images[start : start + _BATCH, channel].ravel(), minlength=256)
        average = float((counts * values).sum() / counts.sum())
        variance = float((counts * (values - average) ** 2).sum() / counts.sum())
        mean.append(average)
        std.append(max(variance**0.5, 1e-3))
    return tuple(mean), tuple(std)


def _resized(part: Split, size: int | None, name: str) -> Split:
    if size is None or part.images.shape[2:] == (size, size):
        return part
    count, channels = part.images.shape[:2]
    with memory_for(name, count, (channels, size, size), copies=2):
        images = np.empty((count, channels, size, size), dtype=np.uint8)
        for start in range(0, count, _BATCH):
            images[start : start + _BATCH] = resize(part.images[start : start + _BATCH], size)
    return replace(part, images=images)


def resize(images: Array, size: int) -> Array:
    """(N, C, H, W) uint8 -> (N, C, size, size) uint8, bilinear with antialiasing."""
    import torch
    import torch.nn.functional as F

    batch = torch.from_numpy(np.ascontiguousarray(images)).float()
    batch = F.interpolate(batch, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return batch.round().clamp(0, 255).to(torch.uint8).numpy()
