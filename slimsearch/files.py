"""Atomic writes, and why files cannot be written.

A file is written under a temporary name in the same folder, then renamed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slimsearch.errors import first_line, related_errors

EXPORT_PREFIX = ".export-"
"""Beginning of the names of temporary folders of exports."""

_FULL = {errno.ENOSPC, errno.EDQUOT}
# Native code raises exceptions without an error number.
_FULL_TEXTS = ("no space left", "disk quota exceeded", "no usable temporary directory")
# Some of it writes a part of a file without an error, and whoever reads the file complains. That part may be removed by
# now, so that there is room for a little again.
_TORN_TEXTS = ("protobuf", "corrupt", "parsing", "unexpected pos", "header", "truncated", "not a zip", "end of file")
_ROOM, _MORE_ROOM = 64 * 2**10, 64 * 2**20


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, for libraries that write files themselves; renamed to `path` at the end.

    The name is unique to this process and keeps the suffix, which some libraries look at. The file has the permissions
    of any new file, which safetensors denies to others. Where the block raises, the temporary file is removed and
    `path` stays as it was.
    """
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")  # see `remove_temporary`
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Write a binary file atomically; with `sync`, it survives a power failure."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, *, indent: int = 1) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def remove_temporary(folder: Path) -> None:
    """Remove the temporary files that killed processes have left anywhere below `folder`."""
    for path in folder.rglob("*.[0-9]*.part*"):
        path.unlink(missing_ok=True)
    for path in folder.rglob(f"{EXPORT_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def unwritable(folder: Path, error: BaseException) -> str | None:
    """Why a task that raised `error` could not write its files, in one line; None if that is not the reason.

    Args:
        folder: of the task's files. The task also writes to the temporary folder.
        error: of any kind, as libraries raise their own exceptions for a full disk.
    """
    errors = sorted(related_errors(error), key=lambda one: not isinstance(one, OSError))  # these name the file
    for one in errors:
        if (isinstance(one, OSError) and one.errno in _FULL) or _says(one, _FULL_TEXTS):
            return f"cannot write files: {first_line(one)}"
    room = _MORE_ROOM if any(_says(one, _TORN_TEXTS) for one in errors) else _ROOM
    for tried in (folder, Path(tempfile.gettempdir())):
        reason = _refused(tried, room)
        if reason is not None:
            return f"cannot write to '{tried}': {reason}"
    return None


def _says(error: BaseException, texts: Sequence[str]) -> bool:
    line = first_line(error).lower()
    return any(text in line for text in texts)


def _refused(folder: Path, room: int) -> str | None:
    """Why `room` bytes cannot be written to `folder`; None if they can, or if the reason is not the disk."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(room))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as found:
        return os.strerror(found.errno) if found.errno in {*_FULL, errno.EROFS, errno.EIO} else None
    return None
