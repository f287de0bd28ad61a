"""The log of a trial: the beginning and the end of its output."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slimsearch.search_spaces import Candidate

PART = 512 * 1024
"""Bytes of the beginning in the log, and of the end."""

_SECONDS_BETWEEN_CUTS = 0.1
_LEFT_OUT = b"\n[... more than the first and the last %d KiB are not kept ...]\n" % (PART // 1024)


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Redirect the output of this process and of native code to the log at `path`."""
    _flush()
    saved = os.dup(1), os.dup(2)
    try:
        with path.open("ab") as log, bounded(path):
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            try:
                yield
            finally:
                _flush()
                for target, original in zip((1, 2), saved, strict=True):
                    os.dup2(original, target)
    finally:
        for original in saved:
            with contextlib.suppress(OSError):
                os.close(original)


def candidate_line(candidate: Candidate) -> str:
    """A candidate in one line of a log."""
    values = " ".join(f"{label}={value}" for label, value in candidate.architecture.items())
    return values + "".join(f" + {stage}" for stage in candidate.recipe)


def metrics_line(metrics: Mapping[str, float]) -> str:
    """Metrics in one line of a log."""
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _flush() -> None:
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):  # the disk is full, or the task has closed it
            stream.flush()


@contextlib.contextmanager
def bounded(path: Path) -> Iterator[None]:
    """Context that removes the middle of the file at `path` whenever the file is too long.

    Processes write to the file itself, not to a pipe: a thread of this process would have to empty the pipe, and may be
    blocked while a writer waits for it.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_SECONDS_BETWEEN_CUTS):
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
    """Remove the middle of the file at `path` if it is much longer than the beginning and the end."""
    with contextlib.suppress(OSError):  # the trial may have deleted it, and its disk may be full
        if path.stat().st_size <= 3 * PART:
            return
        # In place: processes that append have the file open, and continue at its new end.
        with path.open("r+b", buffering=0) as file:
            read = file.seek(-PART, os.SEEK_END)
            written = PART
            piece = _LEFT_OUT
            while piece or path.stat().st_size > read:  # including output that is appended meanwhile
                file.seek(written)
                written += file.write(piece)
                file.seek(read)
                piece = file.read(PART)
                read += len(piece)
            file.truncate(written)
