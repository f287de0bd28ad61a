"""The journal of a run: Optuna's, each line with a checksum, so that a bit that has flipped does not go unnoticed."""

from __future__ import annotations

import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from slimsearch.errors import SlimsearchError
from slimsearch.files import write_bytes

# The last member of a line, which Optuna does not look at.
_CHECKSUM = re.compile(rb',"crc32":"([0-9a-f]{8})"}$')


class Journal(JournalFileBackend):
    """A journal that any Optuna program reads, and writes to: a line without a checksum is not checked."""

    def __init__(self, path: Path) -> None:
        self._path, self._writing = path, JournalFileSymlinkLock(str(path))
        super().__init__(str(path), self._writing)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines, wholly or, where the disk is full, not at all; they are on disk when this returns.

        Raises:
            OSError: they cannot be written.
        """
        content = b"".join(_line(log) for log in logs)
        self._writing.acquire()
        try:
            with self._path.open("ab", buffering=0) as file:
                before = file.seek(0, os.SEEK_END)
                try:
                    while content:
                        content = content[file.write(content) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(before)
                    raise
        finally:
            self._writing.release()


def mend(path: Path, aside: Path) -> bool:
    """Make a journal readable that a kill has torn; gives whether something was moved to the end of `aside`.

    What is after the last newline was never acknowledged, and is moved, unless nothing but the newline is missing.

    Raises:
        SlimsearchError: it is damaged elsewhere; nothing has been changed then.
    """
    whole, newline, rest = path.read_bytes().rpartition(b"\n")
    _check(path, whole)
    if not rest:
        return False
    complete = _CHECKSUM.search(rest) is not None and _wrong(rest) is None
    if not complete:
        with aside.open("ab") as file:
            file.write(rest + b"\n")
    write_bytes(path, whole + newline + (rest + b"\n" if complete else b""), sync=True)
    return not complete


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """What a journal holds, without what a kill has torn.

    Raises:
        SlimsearchError: it is damaged elsewhere.
    """
    whole = path.read_bytes().rpartition(b"\n")[0]
    _check(path, whole)
    return [json.loads(line) for line in whole.split(b"\n")] if whole else []


def _check(path: Path, whole: bytes) -> None:
    for position, line in enumerate(whole.split(b"\n") if whole else [], start=1):
        wrong = _wrong(line)
        if wrong is not None:
            raise SlimsearchError(f"'{path}' is damaged in line {position}: {wrong}; nothing was changed")


def _line(log: dict[str, Any]) -> bytes:
    text = json.dumps(log, separators=(",", ":")).encode()
    return b'%s,"crc32":"%08x"}\n' % (text[:-1], zlib.crc32(text))


def _wrong(line: bytes) -> str | None:
    """What is wrong with a line, or None."""
    found = _CHECKSUM.search(line)
    if found is not None and zlib.crc32(line[: found.start()] + b"}") != int(found[1], 16):
        return "its checksum differs"
    try:
        if isinstance(json.loads(line), dict):
            return None
    except (ValueError, RecursionError):
        pass
    return "it is not JSON"
