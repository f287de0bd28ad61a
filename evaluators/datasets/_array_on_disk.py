"""Arrays in files that are not held in memory: read in blocks, and converted into the cache."""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from slimsearch.errors import SlimsearchError, reason
from slimsearch.evaluators.datasets._conversion import Unsuitable, are_images, converted
from slimsearch.evaluators.datasets._dataset import Array
from slimsearch.evaluators.datasets._splitting import resize
from slimsearch.evaluators.datasets._stored import Put, StoredInputs, find, is_large, key_of, store

_BLOCK = 2**23  # bytes that are read at a time
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class ArrayOnDisk:
    """An array (N, ...) of numbers in an .npy file or in a member of an .npz file.

    Args:
        opened: opens the bytes of the .npy format.
        name: of the file, for messages.
        identity: plain values from which the content follows, such as size and date of the file.
        file: the .npy file; None: a member of another file.

    Attributes:
        shape, dtype, ndim: of the array.
        rows_in_order: whether examples follow each other, so that they can be read in blocks.
        file: the .npy file, or None.
        identity: see above.

    Raises:
        OSError, ValueError, EOFError: there is no header of an .npy file.
    """

    def __init__(
        self, opened: Callable[[], IO[bytes]], name: str, identity: tuple[Any, ...], file: Path | None = None
    ) -> None:
        self._opened, self._name, self.identity, self.file = opened, name, identity, file
        with opened() as stream:
            self.shape, in_columns, self.dtype = self._header(stream)
        self.rows_in_order = not in_columns and self.dtype.kind in "buif" and self.dtype.isnative
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self) -> Iterator[Array]:
        """Consecutive examples (B, ...), of a few MiB.

        Raises:
            SlimsearchError: the file is damaged.
        """
        size = self.dtype.itemsize * math.prod(self.shape[1:])
        rows = max(1, _BLOCK // size)
        with described_damage(self._name), self._opened() as stream:
            self._header(stream)
            for start in range(0, len(self), rows):
                count = min(rows, len(self) - start)
                content = stream.read(count * size)
                if len(content) < count * size:
                    raise EOFError("it ends too early")
                yield np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:]).copy()

    @staticmethod
    def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"version {version} of the .npy format")
        shape, in_columns, dtype = _HEADERS[version](stream)
        return shape, in_columns, dtype


@contextlib.contextmanager
def described_damage(name: object) -> Iterator[None]:
    """Describes errors in reading a file of arrays.

    Raises:
        SlimsearchError: the file is damaged, or holds Python objects.
    """
    try:
        yield
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "pickle" in str(error).lower():
            raise SlimsearchError(
                f"'{name}' holds Python objects, which are not read: save arrays of numbers or texts"
            ) from error
        raise SlimsearchError(f"cannot read '{name}': {reason(error)}") from error


def array_in_file(path: Path) -> ArrayOnDisk | None:
    """The array of an .npy file if it is large; None: it is read as a whole."""
    state = path.stat()
    identity = (str(path.resolve()), state.st_size, state.st_mtime_ns)
    return _large(lambda: path.open("rb"), str(path), identity, path)


def array_in_archive(path: Path, archive: zipfile.ZipFile, name: str) -> ArrayOnDisk | None:
    """The array of a member of an .npz file if it is large; None: it is read as a whole."""
    member, state = f"{name}.npy", path.stat()
    if member not in archive.namelist():
        return None
    info = archive.getinfo(member)
    identity = (path.name, state.st_size, state.st_mtime_ns, member, info.CRC, info.file_size)
    return _large(lambda: _member(path, member), str(path), identity, None)


def _member(path: Path, member: str) -> IO[bytes]:
    with zipfile.ZipFile(path) as archive:  # the stream of a member keeps the file open
        return archive.open(member)


def _large(
    opened: Callable[[], IO[bytes]], name: str, identity: tuple[Any, ...], file: Path | None
) -> ArrayOnDisk | None:
    with contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):  # said by who reads it
        found = ArrayOnDisk(opened, name, identity, file)
        kind = found.dtype if found.dtype == np.uint8 or found.dtype.itemsize > 4 else np.float32
        if found.rows_in_order and found.ndim > 1 and 0 not in found.shape and is_large(found.shape, kind):
            return found
    return None


def stored_arrays(
    arrays: Mapping[str, ArrayOnDisk], name: str, input_kind: str, sizes: Mapping[str, tuple[int, int] | None], *,
    others_are_images: bool,
) -> tuple[dict[str, StoredInputs], bool]:  # fmt: skip
    """The inputs of each split in the cache, and whether they are images: read once, in blocks.

    An .npy file that has them as they are stored is read in its place.

    Args:
        arrays: of each split.
        name: of the data set.
        input_kind: see `from_arrays`.
        sizes: (H, W) that the images of each split are resized to, or None.
        others_are_images: whether the splits in memory are images, see `are_images`.

    Raises:
        SlimsearchError: a file is damaged, or its numbers are none of that kind.
    """
    identities = [list(one.identity) for one in arrays.values()]
    keys = {part: key_of("arrays", identities, part, input_kind, sizes[part], others_are_images) for part in arrays}
    known = {part: find(key) for part, key in keys.items()}
    if all(known.values()):
        found = {part: entry for part, entry in known.items() if entry is not None}
        return {part: entry[0] for part, entry in found.items()}, bool(next(iter(found.values()))[1]["as_images"])
    as_images = others_are_images and all(_are_images(one, input_kind) for one in arrays.values())
    return {
        part: _stored(one, keys[part], name, input_kind, sizes[part], as_images=as_images)
        for part, one in arrays.items()
    }, as_images


def _are_images(array: ArrayOnDisk, input_kind: str) -> bool:
    """As `are_images`; values that cannot be pixels are found in the first block that has some."""
    every_block = (are_images(block, input_kind) for block in array.blocks())
    return next(every_block) if array.dtype.itemsize == 1 or input_kind != "auto" else all(every_block)


def _stored(
    array: ArrayOnDisk, key: str, name: str, input_kind: str, size: tuple[int, int] | None, *, as_images: bool
) -> StoredInputs:
    def inputs(block: Array) -> Array:
        try:
            found = converted(block, input_kind, as_images=as_images)
        except Unsuitable as error:
            raise SlimsearchError(str(error)) from error
        is_image = found.ndim == 4 and found.dtype == np.uint8
        return resize(found, size) if is_image and size not in (None, found.shape[2:]) else found

    example = inputs(next(array.blocks())[:1])

    def fill(put: Put) -> dict[str, Any]:
        start = 0
        for block in array.blocks():
            put(start, inputs(block))
            start += len(block)
        return {"as_images": as_images}

    shape = (len(array), *example.shape[1:])
    as_it_is = (array.shape, array.dtype) == (shape, example.dtype)
    return store(key, name, shape, example.dtype, fill, array.file if as_it_is else None)[0]
