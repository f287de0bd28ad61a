"""The journal of a run: Optuna's journal file with a checksum in each line, to detect damage."""

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

# The last member of a line, which Optuna ignores.
_CHECKSUM = re.compile(rb',"crc32":"([0-9a-f]{8})"}$')


class Journal(JournalFileBackend):
    """A journal that any Optuna program can read and write; lines without a checksum are not checked."""

    def __init__(self, path: Path) -> None:
        self._path, self._writing = path, JournalFileSymlinkLock(str(path))
        super().__init__(str(path), self._writing)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines and flush them to disk; if the disk is full, none is written.

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


def repair(path: Path, aside: Path) -> bool:
    """Repair a journal whose last write was interrupted; returns whether an incomplete line was moved to `aside`.

    Text after the last newline was never acknowledged. It is appended to `aside`, unless only its newline is missing.

    Raises:
        SlimsearchError: the journal is damaged elsewhere; nothing was changed.
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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a journal.

    Raises:
        SlimsearchError: one of them is damaged.
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
    """The damage of a line, or None."""
    found = _CHECKSUM.search(line)
    if found is not None and zlib.crc32(line[: found.start()] + b"}") != int(found[1], 16):
        return "its checksum does not match"
    try:
        if isinstance(json.loads(line), dict):
            return None
    except (ValueError, RecursionError):
        pass
    return "it is not JSON"
