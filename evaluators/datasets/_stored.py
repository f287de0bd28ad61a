"""Inputs that are read from disk in batches: decoded once into a cache that all runs share."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock

from slimsearch.errors import SlimsearchError, escaped, first_line
from slimsearch.files import write_json
from slimsearch.reading import read_json

_log = logging.getLogger(__name__)

Array = np.ndarray[Any, np.dtype[Any]]
T = TypeVar("T")
Put = Callable[[int, Array], None]
"""Takes consecutive inputs (B, ...) and the index of the first."""

_IN_MEMORY = 64 * 2**20  # bytes of inputs up to which a data set is held in memory
_SHARE = 0.25  # of the disk that the cache may use
_INPUTS, _KEYS, _LIMITS, _FACTS = "inputs.npy", "keys.npy", "limits.npy", "facts.json"
_ARRAYS = "arrays"  # the fact that names those that are arrays
_HASH = 16  # bytes
_SECONDS = 10.0  # between two lines of progress
_FORMAT = 1  # of the entries


class StoredInputs:
    """Rows of an .npy file as an array that is read when it is indexed: its memory is that of a batch.

    Read with `pread`, since the pages of a memory-mapped file count as memory of a process.

    Args:
        file: the .npy file; as long as this object lives, the cache does not remove it.
        rows: which of its rows; None: all.
        repeats: how often the one channel of each row is repeated.

    Attributes:
        shape, dtype, ndim: as those of an array.

    Raises:
        OSError, ValueError: the file is missing or damaged.
    """

    def __init__(self, file: Path, rows: Array | None = None, repeats: int = 1) -> None:
        stored = np.load(file, mmap_mode="r", allow_pickle=False)
        self.file, self.dtype = file, stored.dtype
        self.rows = np.arange(len(stored)) if rows is None else rows
        self._offset, self._example = stored.offset, stored.shape[1:]
        self._repeats = repeats
        self._open()
        self._date = os.fstat(self._stream.fileno()).st_mtime_ns

    def _open(self) -> None:
        self._stream = self.file.open("rb", buffering=0)
        with contextlib.suppress(OSError):  # the file system has no locks
            fcntl.flock(self._stream.fileno(), fcntl.LOCK_SH)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_stream"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._open()

    @property
    def shape(self) -> tuple[int, ...]:
        first, *others = self._example
        return (len(self.rows), first * self._repeats, *others)

    @property
    def ndim(self) -> int:
        return 1 + len(self._example)

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return int(self.dtype.itemsize)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Array:
        rows = self.rows[index]
        found = self._read(np.atleast_1d(rows))
        if self._repeats > 1:
            found = np.broadcast_to(found, (len(found), self.shape[1], *found.shape[2:]))
        return found if np.ndim(rows) else found[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __iter__(self) -> Iterator[Array]:
        return (self[index] for index in range(len(self)))

    def subset(self, chosen: Array) -> StoredInputs:
        """Some of the rows, which are not read."""
        return StoredInputs(self.file, self.rows[chosen], self._repeats)

    def repeated(self, count: int) -> StoredInputs:
        """The rows with their one channel `count` times."""
        return StoredInputs(self.file, self.rows, count)

    def keys(self) -> Array:
        """(N, 16) uint8: a hash of each row."""
        found: Array = np.load(self.file.with_name(_KEYS))[self.rows]
        return found

    def limits(self) -> Array:
        """(N, 2) float32: the lowest and the highest number of each row; nan where one is."""
        found: Array = np.load(self.file.with_name(_LIMITS))[self.rows]
        return found

    def remember(self, name: str, parts: Sequence[Array], compute: Callable[[], T]) -> T:
        """A value for JSON that follows from the file and `parts`, computed once."""
        digest = hashlib.sha256()
        for part in parts:
            digest.update(np.ascontiguousarray(part).data)
        memo = self.file.with_name(f"{name}-{digest.hexdigest()[:_HASH]}.json")
        if self.file.with_name(_FACTS).is_file():
            with contextlib.suppress(OSError, SlimsearchError):
                known: T = read_json(memo)
                return known
        found = compute()
        if self.file.with_name(_FACTS).is_file():
            with contextlib.suppress(OSError):  # the cache is not writable
                write_json(memo, found)
        return found

    def _read(self, rows: Array) -> Array:
        if os.fstat(self._stream.fileno()).st_mtime_ns != self._date:  # an .npy file of the user's
            raise SlimsearchError(f"'{self.file.resolve()}' was changed while it is in use")
        steps = np.diff(rows)
        if len(steps) and steps.min() > 0 and len(rows) <= rows[-1] - rows[0] < 2 * len(rows):
            # Most rows of a range, such as those of a split: the whole range is read faster than many pieces.
            everything: Array = self._read(np.arange(rows[0], rows[-1] + 1))
            return np.asarray(everything[rows - rows[0]])
        found = np.empty((len(rows), *self._example), dtype=self.dtype)
        if not len(rows) or not found.size:
            return found
        content = found.reshape(len(rows), -1).view(np.uint8)
        size = content.shape[1]
        starts = [0, *(np.flatnonzero(steps != 1) + 1).tolist()]
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):  # of consecutive rows
            wanted = memoryview(content[start:end].reshape(-1).data)
            position = self._offset + int(rows[start]) * size
            while len(wanted):
                count = os.preadv(self._stream.fileno(), [wanted], position)
                if count == 0:
                    raise SlimsearchError(f"'{self.file}' is damaged: it ends too early")
                wanted, position = wanted[count:], position + count
        return found


Inputs = Array | StoredInputs


def select(inputs: Any, chosen: Array) -> Any:
    """Some of the inputs; stored ones are not read."""
    return inputs.subset(chosen) if isinstance(inputs, StoredInputs) else inputs[chosen]


def folder() -> Path:
    """The folder of the cache: ``SLIMSEARCH_CACHE``, or below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    own = os.environ.get("SLIMSEARCH_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slimsearch"
    return base.expanduser() / "datasets"


def is_large(shape: Sequence[int], dtype: Any) -> bool:
    """Whether inputs (N, ...) are stored rather than held in memory."""
    return math.prod(shape) * int(np.dtype(dtype).itemsize) > _IN_MEMORY


def key_of(*facts: Any) -> str:
    """The name of an entry: a hash of plain values from which its inputs follow."""
    return hashlib.sha256(json.dumps([_FORMAT, *facts], sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[
        :32
    ]


def find(key: str) -> tuple[StoredInputs, dict[str, Any]] | None:
    """The inputs of an entry, and the facts that were stored with them."""
    entry = folder() / key
    try:
        facts = read_json(entry / _FACTS)
        facts |= {name: np.load(entry / f"{name}.npy", allow_pickle=False) for name in facts.pop(_ARRAYS)}
        found = StoredInputs(entry / _INPUTS), facts
        os.utime(entry)  # used last
    except (OSError, ValueError, KeyError, SlimsearchError):
        return None
    return found


def store(
    key: str,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    fill: Callable[[Put], dict[str, Any]],
    file: Path | None = None,
) -> tuple[StoredInputs, dict[str, Any]]:
    """Write an entry, or wait for the process that writes it.

    Args:
        key: see `key_of`.
        name: of the data set, for messages.
        shape: (N, ...) of all inputs.
        dtype: of the inputs.
        fill: puts all inputs, in any order and from any thread, and returns facts that are stored with them: values
            for JSON, and arrays.
        file: an .npy file that has exactly these inputs: it is read in place of a copy.

    Raises:
        SlimsearchError: the disk has too little room or cannot be written to.
    """
    root = folder()
    needed = 0 if file is not None else math.prod(shape) * np.dtype(dtype).itemsize
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{key}.lock"):
            if (found := find(key)) is not None:
                return found
            _make_room(root, needed, name)
            part = root / f"{key}.part"
            shutil.rmtree(part, ignore_errors=True)  # of a killed process
            part.mkdir()
            try:
                with _Writer(part, name, shape, dtype, file) as writer:
                    facts = fill(writer.put)
                arrays = [name for name, value in facts.items() if isinstance(value, np.ndarray)]
                for array in arrays:
                    np.save(part / f"{array}.npy", facts.pop(array), allow_pickle=False)
                write_json(part / _FACTS, {**facts, _ARRAYS: arrays})
                shutil.rmtree(root / key, ignore_errors=True)  # an entry that cannot be read
                part.rename(root / key)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
    except OSError as error:
        raise SlimsearchError(
            f"data set '{name}': cannot write to the cache '{root}': {first_line(error)}; SLIMSEARCH_CACHE "
            "names another folder"
        ) from error
    found = find(key)
    if found is None:
        raise SlimsearchError(f"data set '{name}': the cache '{root}' cannot be read")
    return found


class _Writer:
    """Writes the inputs of an entry, with the hash and the limits of each."""

    def __init__(self, entry: Path, name: str, shape: tuple[int, ...], dtype: Any, file: Path | None) -> None:
        self._entry, self._shape, self._dtype, self._file = entry, shape, np.dtype(dtype), file
        self._keys = np.zeros((shape[0], _HASH), dtype=np.uint8)
        self._limits = np.zeros((shape[0], 2), dtype=np.float32)
        self._lock = threading.Lock()
        self._progress = Progress(name, shape[0])

    def __enter__(self) -> _Writer:
        if self._file is not None:
            (self._entry / _INPUTS).symlink_to(self._file.resolve())
            return self
        # A memory map writes the header and gives the file its size; the content is written without one.
        created = np.lib.format.open_memmap(self._entry / _INPUTS, mode="w+", dtype=self._dtype, shape=self._shape)
        self._offset = created.offset
        del created
        self._stream = (self._entry / _INPUTS).open("r+b", buffering=0)
        return self

    def put(self, start: int, examples: Array) -> None:
        """See `Put`."""
        count = len(examples)
        content = np.ascontiguousarray(examples, dtype=self._dtype).reshape(count, -1)
        raw = content.view(np.uint8)  # (B, bytes of an example)
        keys = b"".join(hashlib.blake2b(row.data, digest_size=_HASH).digest() for row in raw)
        self._keys[start : start + count] = np.frombuffer(keys, dtype=np.uint8).reshape(count, _HASH)
        with np.errstate(over="ignore"):  # float64 outside of the range of float32
            self._limits[start : start + count, 0] = content.min(axis=1)
            self._limits[start : start + count, 1] = content.max(axis=1)
        if self._file is None:
            left, position = memoryview(raw.reshape(-1).data), self._offset + start * raw.shape[1]
            while len(left):
                written = os.pwrite(self._stream.fileno(), left, position)
                left, position = left[written:], position + written
        with self._lock:
            self._progress.step(count)

    def __exit__(self, kind: object, *_: object) -> None:
        if self._file is None:
            self._stream.close()
        if kind is None:
            np.save(self._entry / _KEYS, self._keys)
            np.save(self._entry / _LIMITS, self._limits)


class Progress:
    """Lines about how much of a data set is read, and the time left; none in the first seconds.

    Args:
        name: of the data set.
        count: of what is read.
        unit: of the count; "": examples.
    """

    def __init__(self, name: str, count: int, unit: str = "") -> None:
        self._name, self._count, self._unit, self._done = escaped(name), count, unit and f" {unit}", 0
        self._start = self._said = time.monotonic()

    def step(self, count: int = 1) -> None:
        """`count` more are read."""
        self._done += count
        now = time.monotonic()
        if now - self._said >= _SECONDS and self._done:
            self._said = now
            left = (now - self._start) * (self._count - self._done) / self._done
            shown = f"{left / 60:.0f} minutes" if left >= 120 else f"{left:.0f} seconds"
            _log.warning(
                "data set '%s': %s of %s%s read, %s left",
                self._name, f"{self._done:,}", f"{self._count:,}", self._unit, shown,
            )  # fmt: skip


def _make_room(root: Path, needed: int, name: str) -> None:
    """Remove entries that were used least recently, where the cache would use too much of its disk.

    Raises:
        SlimsearchError: the inputs do not fit.
    """
    total, _, free = shutil.disk_usage(root)
    entries = sorted(
        (entry for entry in root.iterdir() if (entry / _FACTS).is_file()), key=lambda one: one.stat().st_mtime
    )
    sizes = {entry: sum(file.lstat().st_size for file in entry.iterdir()) for entry in entries}
    for entry, size in sizes.items():
        if sum(sizes.values()) + needed <= _SHARE * total and needed <= free:
            break
        if _in_use(entry):
            continue
        shutil.rmtree(entry, ignore_errors=True)
        sizes = {**sizes, entry: 0}
        free = shutil.disk_usage(root).free
        _log.warning(
            "removed %s of decoded inputs, those used least recently, from '%s', which has at most %.0f%% of its disk; "
            "SLIMSEARCH_CACHE names another folder", text_of(size), root, 100 * _SHARE,
        )  # fmt: skip
    if needed > free:
        raise SlimsearchError(
            f"data set '{name}' needs {text_of(needed)} of disk in '{root}', where {text_of(free)} are free: set "
            "SLIMSEARCH_CACHE to a folder on another disk, use fewer examples or a smaller --image-size"
        )


def _in_use(entry: Path) -> bool:
    """Whether a process has an entry open."""
    try:
        with (entry / _INPUTS).open("rb") as stream:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def text_of(size: int) -> str:
    """A number of bytes, such as ``2.8 GiB``."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def link(file: Path, target: Path) -> None:
    """Give a stored file another name, as a hard link where the file system allows it, else a symbolic one."""
    with contextlib.suppress(FileNotFoundError):
        target.unlink()
    try:
        os.link(file, target)
    except OSError:
        target.symlink_to(file.resolve())
