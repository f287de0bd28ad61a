"""Atomic writes: a file is written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, for libraries that write files themselves; renamed to `path` at the end.

    The name is unique to this process and keeps the suffix, which some libraries look at. Where the block raises, the
    temporary file is removed and `path` stays as it was.
    """
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")  # see `remove_temporary`
    try:
        yield temporary
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
