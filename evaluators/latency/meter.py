"""One latency measurement at a time on a machine, while everything of ours that computes there waits.

Two lock files of the user serve all processes and all runs. Whoever computes holds `busy` shared and looks at
`gate` between batches; whoever measures takes `gate`, so that the others let go of `busy` at their next batch,
then waits until `busy` is free. The kernel releases the locks of a process that dies.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from slimsearch.errors import SlimsearchError

try:
    import fcntl

    _HAS_LOCKS = True
except ImportError:  # no such locks on this system: measurements are not exclusive there
    _HAS_LOCKS = False


# Who was waited for in vain is not waited for so long again for a while.
_IMPATIENT, _REMEMBERED = 0.5, 60.0  # seconds


class Meter:
    """This process's part in the protocol. Not for use by two threads at once."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._files: tuple[IO[bytes], IO[bytes]] | None = None
        self._computing = False

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """While in this context, the process computes; it must call `pause_if_measuring` often."""
        gate, busy = self._open()
        _lock_shared(gate)  # not while somebody measures
        _unlock(gate)
        _lock_shared(busy)
        self._computing = True
        try:
            yield
        finally:
            self._computing = False
            _unlock(busy)

    def pause_if_measuring(self) -> None:
        """Between two batches: wait while another process measures. Costs about two microseconds otherwise."""
        if not (_HAS_LOCKS and self._computing):
            return
        gate, busy = self._open()
        try:
            fcntl.flock(gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(gate, fcntl.LOCK_UN)
        except BlockingIOError:
            _unlock(busy)
            _lock_shared(gate)
            _unlock(gate)
            _lock_shared(busy)

    @contextlib.contextmanager
    def exclusive(self, patience: float = 5.0) -> Iterator[bool]:
        """While in this context, nothing else of ours computes or measures on this machine.

        Args:
            patience: seconds to wait for those who compute. One that hangs must not hold up all others: for a minute
                after any process waited for it in vain, half a second must do.

        Yields:
            whether everybody has paused; False: somebody did not within `patience`.
        """
        gate, busy = self._open()
        if self._computing:
            _unlock(busy)
        _lock_exclusive(gate)
        alone = self._wait_for(busy, patience)
        try:
            yield alone
        finally:
            _unlock(busy)
            _unlock(gate)
            if self._computing:
                _lock_shared(busy)

    def _wait_for(self, busy: IO[bytes], patience: float) -> bool:
        """Whether nobody computes any more, within `patience` seconds."""
        # The time of this file says to all processes when somebody was last waited for in vain.
        in_vain = Path(busy.name).with_name("in-vain")
        # Where the file cannot be kept (a full disk, a folder that was cleaned up), each one waits for himself.
        with contextlib.suppress(OSError):
            if abs(time.time() - in_vain.stat().st_mtime) < _REMEMBERED:
                patience = min(patience, _IMPATIENT)
        alone = _lock_exclusive_within(busy, patience)
        with contextlib.suppress(OSError):
            if alone:
                in_vain.unlink(missing_ok=True)
            else:
                in_vain.touch()
        return alone

    def _open(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._files is None:
            folder = self._folder or user_folder()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._files = (folder / "gate").open("ab"), (folder / "busy").open("ab")
        return self._files


def user_folder() -> Path:
    """Where this machine's processes of one user keep what they share, readable by nobody else; made if need be.

    Raises:
        SlimsearchError: somebody else has made it, or a link of that name.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"slimsearch-{user}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or (user != "user" and found.st_uid != user):
        raise SlimsearchError(f"'{folder}' belongs to somebody else: remove it, or name another place in TMPDIR")
    return folder


def _lock_shared(file: IO[bytes]) -> None:
    if _HAS_LOCKS:
        fcntl.flock(file, fcntl.LOCK_SH)


def _lock_exclusive(file: IO[bytes]) -> None:
    if _HAS_LOCKS:
        fcntl.flock(file, fcntl.LOCK_EX)


def _lock_exclusive_within(file: IO[bytes], seconds: float) -> bool:
    if not _HAS_LOCKS:
        return False
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.002)
        else:
            return True


def _unlock(file: IO[bytes]) -> None:
    if _HAS_LOCKS:
        fcntl.flock(file, fcntl.LOCK_UN)
