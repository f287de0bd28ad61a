"""The three splits of a data set: stratified, the same for every run, each example and each group in one of them."""

from __future__ import annotations

import hashlib
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from slimsearch.errors import SlimsearchError, escaped
from slimsearch.evaluators.datasets._columns import Column, Table
from slimsearch.evaluators.datasets._dataset import Array, Dataset, Raw, Split
from slimsearch.evaluators.datasets._encoding import encoded_on_disk
from slimsearch.evaluators.datasets._fields import positions
from slimsearch.evaluators.datasets._memory import memory_for
from slimsearch.evaluators.datasets._stored import Inputs, StoredInputs, select
from slimsearch.evaluators.tasks import Classification, LearningTask

_log = logging.getLogger(__name__)

# The same for every run, whatever its seed: runs on one data set are comparable.
_SPLIT_SEED = 0
_OF_TRAIN = 0.1  # if the source has its own validation or test images
_OF_ALL = 0.15  # otherwise, each for validation and test
_BATCH = 64  # examples that are copied as floats or as int64 at the same time
_BATCH_BYTES = 2**20  # of inputs on disk, if that is more
_FREE = -1  # an example that has no part yet


def split(
    raw: Raw, name: str, task: LearningTask, image_size: tuple[int, int] | None = None, *, drop_duplicates: bool = False
) -> Dataset:
    """Split a data set, stratified by class (see `LearningTask.strata`); the same split for every run.

    Splits of the source are kept. If it has neither validation nor test examples, 15% each are taken for them; if it
    has one of them, 10% of the rest are taken for the other. Copies of one example, and examples of one group, are
    never separated by that. Copies in several splits of the source are reported in a log line.

    Args:
        raw: the examples.
        name: of the data set.
        task: what is learned.
        image_size: (H, W) that images are resized to; None: unchanged.
        drop_duplicates: keep one copy of each example outside of the test split: in validation if it is there, and none
            if it is a test example.

    Raises:
        SlimsearchError: there are fewer than 2 classes, too few examples of a class, inputs of one value only or that
            are not finite, or the splits have different shapes.
    """
    train, validation, test = (
        _resized(part, image_size, name) if part is not None else None
        for part in (Split(raw.inputs, raw.targets), raw.validation, raw.test)
    )
    assert train is not None
    _check(raw, name, task, train, validation, test)
    notes: list[str] = []
    if drop_duplicates:
        before = sum(map(len, filter(None, (train, validation))))
        kept, validation = _without_duplicates(train, validation, test)
        train, groups = _subset(train, kept), None if raw.groups is None else raw.groups[kept]
        raw = replace(raw, groups=groups)
        if dropped := before - sum(map(len, filter(None, (train, validation)))):
            notes.append(f"{dropped:,} duplicates dropped")
    copies = 0 if isinstance(train.inputs, StoredInputs) or (validation is not None and test is not None) else 1
    with memory_for(name, len(train), train.inputs.shape[1:], copies * train.inputs.itemsize):
        found = _split(raw, name, task, train, validation, test)
        assert found.test is not None
        if raw.groups is not None:
            notes += _missing_classes(found, name)
        copied = _copies({"training": found.train, "validation": found.validation, "test": found.test})
    notes += [*found.notes, *([copied] if copied is not None else [])]
    for note in notes:
        _log.warning("data set '%s': %s", escaped(str(name)), note)
    return replace(found, notes=(*raw.notes, *notes))


def _split(
    raw: Raw, name: str, task: LearningTask, train: Split, validation: Split | None, test: Split | None
) -> Dataset:
    missing = [part for part, given in (("validation", validation), ("test", test)) if given is None]
    share = _OF_ALL if len(missing) == 2 else _OF_TRAIN
    strata = _Strata(task, train.targets, raw.classes)
    if raw.groups is None or not missing:
        train, *held_out = _held_out(train, strata, name, share, len(missing))
    else:
        train, *held_out = _held_out_groups(train, raw.groups, strata.numbers, name, share, len(missing))
    parts = {"training": train, "validation": validation, "test": test, **dict(zip(missing, held_out, strict=True))}
    train, validation, test = (part for part in parts.values() if part is not None)
    columns: tuple[Column, ...] = ()
    notes: list[str] = []
    if raw.table is not None:
        columns, notes, inputs = _encoded(raw.table, name, [part.inputs for part in (train, validation, test)])
        train, validation, test = (
            Split(values, part.targets) for values, part in zip(inputs, (train, validation, test), strict=True)
        )
        _check_values(name, train, validation, test)
    mean, std = _statistics(train.inputs, positions(raw.fields) if raw.fields else None)
    return Dataset(
        name, raw.classes, train, validation, test, mean, std, raw.augmentation, raw.white, tuple(notes),
        task.fitted(train.targets), columns, raw.fields,
    )  # fmt: skip


def _encoded(table: Table, name: str, parts: Sequence[Inputs]) -> tuple[tuple[Column, ...], list[str], list[Inputs]]:
    """The columns of a table as the first of `parts` shows them, lines about them, and the inputs of all parts."""
    stored = [part for part in parts if isinstance(part, StoredInputs)]
    if stored:
        columns, notes, inputs = encoded_on_disk(replace(table, values=stored[0]), name, stored)
        return columns, notes, [*inputs]
    columns, notes = replace(table, values=parts[0]).fitted()
    return columns, notes, [replace(table, values=part).encoded(columns) for part in parts]


class _Strata:
    """The groups of examples that each split has in equal shares.

    Attributes:
        numbers: (N,) int64, the group of each example.
        count: number of groups.
        required: whether each split needs an example of each group.
    """

    def __init__(self, task: LearningTask, targets: Array, classes: Sequence[str]) -> None:
        self.required = isinstance(task, Classification)
        if self.required:
            self.numbers, self.count = targets, len(classes)
        else:
            self.numbers = np.unique(task.strata(targets), return_inverse=True)[1]
            self.count = int(self.numbers.max()) + 1
        self._classes = classes

    def name(self, number: int) -> str:
        """Description of a group, for messages."""
        return f"class '{self._classes[number]}'" if self.required else "the data set"


def _check(raw: Raw, name: str, task: LearningTask, train: Split, *others: Split | None) -> None:
    for part, other in zip(("validation", "test"), others, strict=True):
        if other is not None and other.inputs.shape[1:] != train.inputs.shape[1:]:
            raise SlimsearchError(
                f"data set '{name}': {_kind(train.inputs)} have the shape {train.inputs.shape[1:]}, {part} "
                f"{_kind(train.inputs)} {other.inputs.shape[1:]}"
            )
        if other is not None and other.inputs.dtype != train.inputs.dtype:
            raise SlimsearchError(
                f"data set '{name}': training {_kind(train.inputs)} are {train.inputs.dtype}, those of {part} "
                f"{other.inputs.dtype}; give all in one range, or --input-kind"
            )
    if len(raw.classes) < 2 and isinstance(task, Classification):
        raise SlimsearchError(f"data set '{name}' has {len(raw.classes)} class; at least 2 are needed")
    if len(train) == 0:
        raise SlimsearchError(f"data set '{name}' has no training examples")
    if raw.table is None:
        _check_values(name, train, *others)


def _check_values(name: str, train: Split, *others: Split | None) -> None:
    low, high = _limits(train.inputs)
    if low == high:
        range_ = " (of 0 to 255)" if train.inputs.dtype == np.uint8 else ""
        kind = "pixel" if train.inputs.ndim == 4 else "value"
        raise SlimsearchError(
            f"data set '{name}': every {kind} of all training {_kind(train.inputs)} is {high:g}{range_}"
        )
    for part, given in zip(("training", "validation", "test"), (train, *others), strict=True):
        if given is not None and given.inputs.dtype != np.uint8 and not np.isfinite(_limits(given.inputs)).all():
            finite = (np.isfinite(batch).reshape(len(batch), -1).all(axis=1) for batch in _batches(given.inputs))
            bad = int(np.concatenate(list(finite)).argmin())
            raise SlimsearchError(
                f"data set '{name}': {part} example {bad} has values that are nan or infinite; fill or drop them"
            )


def _limits(inputs: Inputs) -> tuple[float, float]:
    """The lowest and the highest number; nan if there is one."""
    if isinstance(inputs, StoredInputs):
        limits = inputs.limits()
        return float(limits[:, 0].min()), float(limits[:, 1].max())
    return float(inputs.min()), float(inputs.max())


def _kind(inputs: Inputs) -> str:
    return "images" if inputs.ndim == 4 else "examples"


def _without_duplicates(train: Split, validation: Split | None, test: Split | None) -> tuple[Array, Split | None]:
    """Indices of the training examples, and the validation examples, without those of later splits and one of each."""
    parts = [part for part in (test, validation, train) if part is not None]
    numbers = _numbers(*(part.inputs for part in parts))
    first = np.zeros(len(numbers), dtype=np.bool_)
    first[np.unique(numbers, return_index=True)[1]] = True
    kept = [np.flatnonzero(part) for part in np.split(first, np.cumsum([len(part) for part in parts])[:-1])]
    return kept[-1], None if validation is None else _subset(validation, kept[-2])


def _held_out_groups(train: Split, groups: Array, strata: Array, name: str, fraction: float, count: int) -> list[Split]:
    """As `_held_out`, with all examples of a group, and copies of an example, in one part.

    Strata have about equal shares, as far as the groups allow that (scikit-learn's StratifiedGroupKFold).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from sklearn.model_selection import StratifiedGroupKFold

    copies = _numbers(train.inputs)
    nodes = int(groups.max()) + 1
    edges = coo_array((np.ones(len(groups)), (groups, copies + nodes)), shape=[nodes + int(copies.max()) + 1] * 2)
    found = connected_components(edges, directed=False)[1][groups]
    _, first, together = np.unique(found, return_index=True, return_inverse=True)
    together = np.argsort(np.argsort(first))[together]  # numbered in order, whatever the groups are called
    total = len(first)
    if total <= count:
        raise SlimsearchError(
            f"data set '{name}' has {total} groups without common examples; at least {count + 1} are needed"
        )
    folds = max(count + 1, min(round(1 / fraction), total, int(np.bincount(strata).max())))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=_SPLIT_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about strata with fewer examples than folds
        parts = np.zeros(len(train), dtype=np.int64)
        for number, (_, members) in zip(range(1, count + 1), splitter.split(strata, strata, together), strict=False):
            parts[members] = number
    return [_subset(train, np.flatnonzero(parts == number)) for number in range(count + 1)]


def _missing_classes(data: Dataset, name: str) -> list[str]:
    """A line for each split that has no example of some classes, as all groups with them are in another split.

    Raises:
        SlimsearchError: it is the training split.
    """
    if not isinstance(data.task, Classification):
        return []
    lines = []
    for part, examples in (("training", data.train), ("validation", data.validation), ("test", data.test)):
        there = set() if examples is None else set(examples.targets.tolist())
        if missing := [one for label, one in enumerate(data.classes) if label not in there]:
            what = "class" if len(missing) == 1 else "classes"
            lines.append(f"no {part} example has the {what} {', '.join(missing)}: too few groups have such examples")
            if part == "training":
                raise SlimsearchError(f"data set '{name}': {lines[-1]}")
    return lines


def _held_out(train: Split, strata: _Strata, name: str, fraction: float, count: int) -> list[Split]:
    """The remaining examples, then `count` parts with `fraction` of every stratum.

    Copies of an example are in one part, unless the stratum has too few different examples.
    """
    numbers = np.bincount(strata.numbers, minlength=strata.count)
    scarce = int(numbers.argmin())
    least = numbers[scarce] if strata.required else len(train)
    if least <= count:
        raise SlimsearchError(
            f"data set '{name}': {strata.name(scarce)} has {least} {_kind(train.inputs)}; "
            f"at least {count + 1} are needed"
        )
    if count == 0:
        return [train]
    rng = np.random.default_rng(_SPLIT_SEED)
    examples = _numbers(train.inputs)
    different = int(examples.max()) + 1
    part_of = np.full(different, _FREE, dtype=np.int8)
    parts = np.zeros(len(train), dtype=np.int8)
    for stratum in range(strata.count):
        members = rng.permutation(np.flatnonzero(strata.numbers == stratum))
        size = max(1, round(len(members) * fraction))
        known, positions = _in_order(examples[members])
        assigned = _assigned(np.bincount(positions), part_of[known], size, count)
        if strata.required and len(np.unique(assigned)) <= count:  # too few different examples for every part
            free = np.full(len(members), _FREE, dtype=np.int8)
            parts[members] = _assigned(np.ones(len(members), dtype=np.int64), free, size, count)
            examples[members] = -1
        else:
            part_of[known] = assigned
    whole = examples >= 0
    parts[whole] = part_of[examples[whole]]
    return [_subset(train, np.flatnonzero(parts == number)) for number in range(count + 1)]


def _assigned(copies: Array, part_of: Array, size: int, count: int) -> Array:
    """The part of each different example of a class: `size` examples in each of the parts 1 to `count`, others in 0.

    Args:
        copies: (D,) number of copies of each different example.
        part_of: (D,) their parts; those that are not `_FREE` stay, since they are examples of other classes too.
    """
    part_of = part_of.copy()
    for part in range(1, count + 1):
        left = size - int(copies[part_of == part].sum())
        free = np.flatnonzero(part_of == _FREE)
        spare = len(free) - (count - part + 1)  # one example is for each later part, and one for part 0
        chosen = free[_fitting(copies[free], left, spare)]
        if left == size and len(chosen) == 0 and len(free):
            chosen = free[[copies[free].argmin()]]
        part_of[chosen] = part
    part_of[part_of == _FREE] = 0
    return part_of


def _fitting(copies: Array, left: int, most: int) -> list[int]:
    """Positions of the first examples, at most `most`, whose copies together are at most `left`."""
    chosen: list[int] = []
    for position, number in enumerate(copies.tolist()):
        if left <= 0 or len(chosen) >= most:
            break
        if number <= left:
            chosen.append(position)
            left -= number
    return chosen


def _in_order(numbers: Array) -> tuple[Array, Array]:
    """(D,) the different numbers in order of their first occurrence, and (N,) the position of each number in them."""
    known, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.argsort(first)
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    return known[order], position[inverse]


def _copies(parts: dict[str, Split]) -> str | None:
    """A line about images that are copies of others, or None."""
    numbers = _numbers(*(examples.inputs for examples in parts.values()))
    total, different = len(numbers), int(numbers.max()) + 1
    if different == total:
        return None
    split = dict(
        zip(parts, np.split(numbers, np.cumsum([len(examples) for examples in parts.values()])[:-1]), strict=True)
    )
    kind, one = _kind(parts["training"].inputs), "an image" if parts["training"].inputs.ndim == 4 else "an example"
    lines = [f"{total - different:,} of {total:,} {kind} are copies of others"]
    shared = []
    for earlier, later in combinations(parts, 2):
        known = np.zeros(different, dtype=np.bool_)
        known[split[earlier]] = True
        if found := int(known[split[later]].sum()):
            shared.append(f"{found:,} of {len(split[later]):,} {later} {kind} are {earlier} {kind} too")
    lines += [*shared, "--drop-duplicates removes them"] if shared else [f"copies of {one} are in one split"]
    several = np.bincount(numbers) > 1
    targets: dict[int, set[bytes]] = {}
    for part, examples in parts.items():
        for index in np.flatnonzero(several[split[part]]):
            targets.setdefault(int(split[part][index]), set()).add(examples.targets[index].tobytes())
    if ambiguous := sum(len(found) > 1 for found in targets.values()):
        lines.append(f"{ambiguous:,} {kind} are in more than one class")
    return "; ".join(lines)


def _numbers(*inputs: Inputs) -> Array:
    """(N,) int64 of the examples of all `inputs`: equal for equal examples, without gaps from 0."""
    keys = np.concatenate([_keys(one) for one in inputs])
    first, second = np.ascontiguousarray(keys.view(np.uint64).T)
    order = np.lexsort((second, first))
    changed = (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
    numbers = np.empty(len(keys), dtype=np.int64)
    numbers[order] = np.concatenate([[0], np.cumsum(changed)])
    return numbers


def _keys(inputs: Inputs) -> Array:
    """(N, 16) uint8: a hash of each example."""
    if isinstance(inputs, StoredInputs):
        return inputs.keys()
    digests = (hashlib.blake2b(np.ascontiguousarray(one).data, digest_size=16).digest() for one in inputs)
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 16)


def _subset(part: Split, chosen: Array) -> Split:
    if len(chosen) == len(part):
        return part
    return Split(select(part.inputs, chosen), part.targets[chosen])


def _statistics(inputs: Inputs, packed: Array | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel: of value / 255 for uint8, otherwise of the values.

    Args:
        inputs: (N, ...).
        packed: of several inputs side by side, the number of values of each channel.
    """
    if isinstance(inputs, StoredInputs):
        parts = [inputs.rows, *([] if packed is None else [packed])]
        mean, std = inputs.remember("statistics", parts, lambda: _computed_statistics(inputs, packed))
        return tuple(mean), tuple(std)
    return _computed_statistics(inputs, packed)


def _computed_statistics(inputs: Inputs, packed: Array | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if packed is not None:
        return _statistics_of_channels(inputs, packed)
    if inputs.dtype != np.uint8:
        return _statistics_of_floats(inputs)
    values = np.arange(256) / 255
    counts = np.zeros((inputs.shape[1], 256), dtype=np.int64)
    for batch in _batches(inputs):
        for channel in range(len(counts)):
            counts[channel] += np.bincount(batch[:, channel].ravel(), minlength=256)
    mean, std = [], []
    for count in counts:
        average = float((count * values).sum() / count.sum())
        variance = float((count * (values - average) ** 2).sum() / count.sum())
        mean.append(average)
        std.append(max(variance**0.5, 1e-3))
    return tuple(mean), tuple(std)


def _statistics_of_floats(inputs: Inputs) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """In two passes, for values far from 0; a constant channel has the deviation 1."""
    other = tuple(axis for axis in range(inputs.ndim) if axis != 1)
    count = math.prod(inputs.shape) / inputs.shape[1]
    mean = sum(batch.sum(axis=other, dtype=np.float64) for batch in _batches(inputs)) / count
    shape = (1, -1, *[1] * (inputs.ndim - 2))
    squares = (np.square(batch - mean.reshape(shape), dtype=np.float64).sum(axis=other) for batch in _batches(inputs))
    std = np.sqrt(sum(squares) / count)
    negligible = std <= 1e-6 * np.abs(mean)
    return tuple(mean.tolist()), tuple(np.where(negligible, 1.0, std).tolist())


def _statistics_of_channels(inputs: Inputs, packed: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As `_statistics_of_floats`, of channels of `packed` values each, side by side in (N, F)."""
    starts, counts = np.concatenate([[0], np.cumsum(packed)[:-1]]), len(inputs) * packed
    sums = (np.add.reduceat(batch.sum(axis=0, dtype=np.float64), starts) for batch in _batches(inputs))
    mean = sum(sums) / counts
    wide = np.repeat(mean, packed)
    squares = (
        np.add.reduceat(np.square(batch - wide, dtype=np.float64).sum(axis=0), starts) for batch in _batches(inputs)
    )
    std = np.sqrt(sum(squares) / counts)
    return tuple(mean.tolist()), tuple(np.where(std <= 1e-6 * np.abs(mean), 1.0, std).tolist())


def _batches(inputs: Inputs) -> Iterator[Array]:
    size = _BATCH
    if isinstance(inputs, StoredInputs):
        size = max(size, _BATCH_BYTES // (inputs.itemsize * math.prod(inputs.shape[1:])))
    return (inputs[start : start + size] for start in range(0, len(inputs), size))


def _resized(part: Split, size: tuple[int, int] | None, name: str) -> Split:
    if size is None or part.inputs.shape[2:] == size:
        return part
    if part.inputs.ndim != 4 or part.inputs.dtype != np.uint8 or part.targets.ndim == 3:
        raise SlimsearchError("--image-size resizes images of bytes with a target each, not other examples")
    count, channels = part.inputs.shape[:2]
    with memory_for(name, count, (channels, *size), copies=2):
        images = np.empty((count, channels, *size), dtype=np.uint8)
        for start in range(0, count, _BATCH):
            images[start : start + _BATCH] = resize(part.inputs[start : start + _BATCH], size)
    return replace(part, inputs=images)


def resize(images: Array, size: tuple[int, int]) -> Array:
    """(N, C, H, W) uint8 -> (N, C, *size) uint8, bilinear with antialiasing."""
    import torch
    import torch.nn.functional as F

    batch = torch.from_numpy(np.ascontiguousarray(images)).float()
    batch = F.interpolate(batch, size=size, mode="bilinear", antialias=True, align_corners=False)
    return batch.round().clamp(0, 255).to(torch.uint8).numpy()
