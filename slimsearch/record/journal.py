"""The journal of a run: Optuna's journal file with a checksum in each line, to detect damage.

The last member of a line, which Optuna ignores, is the CRC-32 of all bytes before the line and of the line itself. So a
line that is changed, removed, repeated or moved is detected, except where the last lines are missing: the file is then
as it was before they were written. In runs of older versions, a checksum covers its own line only; lines of other
programs and of version 0.1 have none. The next line covers them all.
"""

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

_CHECKSUM = re.compile(rb',"crc32":"([0-9a-f]{8})"}$')
_START = 1  # of the checksums; not 0, with which the first line would have that of its text alone
_WRONG_CHECKSUM = "its checksum does not match"


class Journal(JournalFileBackend):
    """A journal that any Optuna program can read and write."""

    def __init__(self, path: Path) -> None:
        self._path, self._writing = path, JournalFileSymlinkLock(str(path))
        self._size, self._crc = 0, _START  # of the bytes that are in the file
        super().__init__(str(path), self._writing)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines and flush them to disk; if the disk is full, none is written.

        Raises:
            OSError: they cannot be written.
        """
        self._writing.acquire()
        try:
            with self._path.open("ab+", buffering=0) as file:
                if file.seek(0, os.SEEK_END) < self._size:
                    self._size, self._crc = 0, _START
                file.seek(self._size)  # other programs may have written since
                written = file.readall()
                before, crc = self._size + len(written), zlib.crc32(written, self._crc)
                content = bytearray()
                for log in logs:
                    line = _line(log, crc)
                    content += line
                    crc = zlib.crc32(line, crc)
                size = before + len(content)
                try:
                    while content:
                        content = content[file.write(content) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(before)
                    raise
                self._size, self._crc = size, crc
        finally:
            self._writing.release()


def repair(path: Path, aside: Path) -> bool:
    """Repair a journal whose last write was interrupted; returns whether an incomplete line was moved to `aside`.

    Text after the last newline was never acknowledged. It is appended to `aside`, unless only its newline is missing.

    Raises:
        SlimsearchError: the journal is damaged elsewhere; nothing was changed.
    """
    whole, newline, rest = path.read_bytes().rpartition(b"\n")
    crc = _check(path, whole)
    if not rest:
        return False
    complete = _CHECKSUM.search(rest) is not None and _wrong(rest, crc) is None
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


def _check(path: Path, whole: bytes) -> int:
    """Check all lines; returns the CRC-32 of `whole` and its last newline."""
    crc, unchecked = _START, None  # the first of the last lines without a checksum
    for position, line in enumerate(whole.split(b"\n") if whole else [], start=1):
        wrong = _wrong(line, crc)
        if wrong is not None:
            first = unchecked if wrong == _WRONG_CHECKSUM and unchecked is not None else position
            raise SlimsearchError(f"'{path}' is damaged in line {first}: {wrong}; nothing was changed")
        unchecked = (unchecked or position) if _CHECKSUM.search(line) is None else None
        crc = zlib.crc32(line + b"\n", crc)
    return crc


def _line(log: dict[str, Any], before: int) -> bytes:
    text = json.dumps(log, separators=(",", ":")).encode()
    return b'%s,"crc32":"%08x"}\n' % (text[:-1], zlib.crc32(text, before))


def _wrong(line: bytes, before: int) -> str | None:
    """The damage of a line, or None; `before` is the CRC-32 of all bytes before it."""
    found = _CHECKSUM.search(line)
    if found is not None:
        text = line[: found.start()] + b"}"
        if int(found[1], 16) not in (zlib.crc32(text, before), zlib.crc32(text)):
            return _WRONG_CHECKSUM
    try:
        return None if isinstance(json.loads(line), dict) else "it is not JSON"
    except (ValueError, RecursionError):
        return "it is not JSON"
