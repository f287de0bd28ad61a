"""Progress of long steps on a terminal or in a notebook: what is done, how far it is, and the time left.

A step is one line that is there while the step lasts, from its second second on, and leaves nothing behind. Nothing is
shown elsewhere, such as in a file or in a worker process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from slimsearch.errors import escaped

T = TypeVar("T")

_BEFORE, _EVERY = 1.0, 0.25
_CLEAR = "\r\x1b[2K"
_STDERR = 2


class _Step:
    """A long step.

    Attributes:
        what: is done.
        total: number of its parts; None: unknown.
        done: parts.
    """

    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total, self.done = what, total, 0
        self.began = time.monotonic()

    def advance(self) -> None:
        self.done += 1

    def line(self) -> str:
        elapsed = time.monotonic() - self.began
        if not self.total:
            return f"{self.what}, {duration(elapsed)}"
        left = f", about {duration(elapsed / self.done * (self.total - self.done))} left" if self.done else ""
        return f"{self.what}: {min(self.done, self.total):,} of {self.total:,}{left}"


_steps: list[_Step] = []
_shown = threading.Lock()
"""Held while a line is on the terminal: there is one at a time."""


@contextlib.contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """A context that shows the progress of what is done in it.

    Args:
        what: is done, such as "reading images".
        total: number of its parts; None: unknown, and the elapsed time is shown.

    Yields:
        a function that counts one part.
    """
    step = _Step(escaped(what), total)
    _steps.append(step)
    try:
        with line_shown(current_step):
            yield step.advance
    finally:
        _steps.remove(step)


def counted(what: str, values: Iterable[T], total: int) -> Iterator[T]:
    """The `values`, with their number as the progress of what is done with them."""
    with progress(what, total) as advance:
        for value in values:
            yield value
            advance()


def current_step() -> str:
    """The line of the innermost step; empty if there is none."""
    with contextlib.suppress(IndexError):
        return _steps[-1].line()
    return ""


@contextlib.contextmanager
def line_shown(text: Callable[[], str]) -> Iterator[None]:
    """A context in which a line is shown on the terminal or in the notebook, and kept up to date.

    Within another one, and where there is neither a terminal nor a notebook, it shows nothing.
    """
    write = _writer()
    if write is None or not _shown.acquire(blocking=False):
        yield
        return
    over = threading.Event()

    def draw() -> None:
        wait = _BEFORE
        while not over.wait(wait):
            write(text())
            wait = _EVERY

    thread = threading.Thread(target=draw, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        write("")
        _shown.release()


@contextlib.contextmanager
def shown_elsewhere() -> Iterator[None]:
    """A context in which no line is shown, since a live display shows `current_step`."""
    mine = _shown.acquire(blocking=False)
    try:
        yield
    finally:
        if mine:
            _shown.release()


def duration(seconds: float) -> str:
    """``1:02`` or ``1:02:03``"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _writer() -> Callable[[str], None] | None:
    """A function that replaces the line; None if there is nowhere to show it."""
    if multiprocessing.parent_process() is not None:
        return None
    if in_notebook():
        return _notebook_writer()
    try:
        return _write_line if os.isatty(_STDERR) else None
    except OSError:
        return None


def _write_line(line: str) -> None:
    columns = shutil.get_terminal_size().columns
    text = line if len(line) < columns else f"{line[: columns - 2]}…"
    # Past Python's buffers, whose locks a process that is forked meanwhile would inherit.
    with contextlib.suppress(OSError):
        os.write(_STDERR, f"{_CLEAR}{text}".encode(errors="replace"))


def _notebook_writer() -> Callable[[str], None]:
    from IPython import display as notebook

    show: Any = notebook.display
    handles: list[Any] = []

    def write(line: str) -> None:
        content = {"text/plain": line}
        if handles:
            handles[0].update(content, raw=True)
        elif line:
            handles.append(show(content, raw=True, display_id=True))

    return write
