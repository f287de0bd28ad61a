"""The log of a trial, which keeps its first and its last part, however much the trial prints."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

PART = 512 * 1024
"""Bytes that are kept of the beginning, and as many of the end."""

_SECONDS = 0.1
_LEFT_OUT = b"\n[... more than the first and the last %d KiB are not kept ...]\n" % (PART // 1024)


@contextlib.contextmanager
def bounded(path: Path) -> Iterator[None]:
    """While in this context, what others append to the file at `path` is cut in its middle, again and again.

    They write to the file itself: a pipe in between would have to be emptied by a thread of this process, which may
    be kept from running for as long as somebody waits for the pipe.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_SECONDS):
            cut(path)

    thread = threading.Thread(target=watch, name="trial log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        cut(path)


def cut(path: Path) -> None:
    """Leave out the middle of a file that is much longer than the two parts of it that are kept."""
    with contextlib.suppress(OSError):  # the trial may have deleted it, and its disk may be full
        if path.stat().st_size <= 3 * PART:
            return
        # In place: whoever appends has the file open, and goes on at its new end.
        with path.open("r+b", buffering=0) as file:
            read = file.seek(-PART, os.SEEK_END)
            written = PART
            kept = _LEFT_OUT
            while kept or path.stat().st_size > read:  # what is appended meanwhile comes along
                file.seek(written)
                written += file.write(kept)
                file.seek(read)
                kept = file.read(PART)
                read += len(kept)
            file.truncate(written)
