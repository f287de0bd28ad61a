"""Exclusive use of the machine for one latency measurement at a time, while Slimsearch's other processes pause.

Two lock files coordinate all processes and runs of a user. A process that trains holds `computing` shared and checks
`measuring` between batches. A process that measures locks `measuring`, so that the others release `computing` at their
next batch, and waits until `computing` is free. The kernel releases the locks of a process that dies. For one that is
suspended while it measures, the others wait for a moment only, and for one that hangs, for ten minutes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from slimsearch.running_time import is_suspended
from slimsearch.temporary import user_folder

try:
    import fcntl

    _HAS_LOCKS = True
except ImportError:  # a system without such locks: measurements are not exclusive
    _HAS_LOCKS = False

_log = logging.getLogger(__name__)

# Seconds to wait for a measurement of a process that is suspended, of any other, and between two attempts.
_SUSPENDED, _LONGEST, _BETWEEN = 1.0, 600.0, 0.01

# After waiting in vain for a process to pause, all processes wait less for a while.
_IMPATIENT, _REMEMBERED = 0.5, 60.0  # seconds


class Meter:
    """The locks of one process. Not thread-safe.

    Attributes:
        owner: what is measured, for processes that wait.
        training_seconds: time that this process has trained, without pauses for measurements of others.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self.owner = ""
        self._given_up = ""  # the holder of the lock that this process no longer waits for
        self._files: tuple[IO[bytes], IO[bytes]] | None = None
        self._computing = False
        self._paused_seconds = 0.0
        self.training_seconds = 0.0

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Context in which this process trains."""
        started, paused = time.perf_counter(), self._paused_seconds
        try:
            yield
        finally:
            self.training_seconds += time.perf_counter() - started - (self._paused_seconds - paused)

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Context in which this process computes; it must call `pause_if_measuring` often."""
        measuring, computing = self._open()
        if self._locked(measuring, shared=True):  # a measurement has ended
            _unlock(measuring)
        self._locked(computing, shared=True)
        self._computing = True
        try:
            yield
        finally:
            self._computing = False
            _unlock(computing)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Context in which this process computes nothing, so that a measurement of another does not wait for it."""
        _, computing = self._open()
        if self._computing:
            _unlock(computing)
        try:
            yield
        finally:
            if self._computing:
                self._locked(computing, shared=True)

    def pause_if_measuring(self) -> None:
        """Wait while another process measures; takes about 2 microseconds if none does. Call it between batches."""
        if not (_HAS_LOCKS and self._computing):
            return
        measuring, computing = self._open()
        try:
            fcntl.flock(measuring, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(measuring, fcntl.LOCK_UN)
        except BlockingIOError:
            if self._given_up and self._holder() == self._given_up:
                return
            started = time.perf_counter()
            _unlock(computing)
            if self._locked(measuring, shared=True):
                _unlock(measuring)
            self._locked(computing, shared=True)
            self._paused_seconds += time.perf_counter() - started

    @contextlib.contextmanager
    def exclusive(self, patience: float = 5.0) -> Iterator[bool]:
        """Context in which no other process of Slimsearch computes or measures on this machine.

        Args:
            patience: seconds to wait for the others to pause; at most 0.5 for a minute after any process has waited in
                vain, so that a process that hangs does not delay every measurement.

        Yields:
            whether all others have paused.
        """
        measuring, computing = self._open()
        if self._computing:
            _unlock(computing)
        alone = self._locked(measuring, shared=False)
        if alone:
            with contextlib.suppress(OSError):  # the disk may be full
                measuring.truncate(0)
                measuring.write(f"{os.getpid()} {time.monotonic_ns()} {self.owner}".encode(errors="replace"))
                measuring.flush()
            alone = self._wait_for(computing, patience)
        try:
            yield alone
        finally:
            _unlock(computing)
            _unlock(measuring)
            if self._computing:
                self._locked(computing, shared=True)

    def _locked(self, file: IO[bytes], *, shared: bool) -> bool:
        """Wait for a lock; False after waiting in vain for a process that is suspended or hangs while it measures."""
        if not _HAS_LOCKS:
            return True
        operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(file, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = self._holder()
                if holder and holder == self._given_up:
                    return False
                pid, _, measured = holder.partition(" ")
                suspended = pid.isdecimal() and is_suspended(int(pid))
                if time.monotonic() - began < (_SUSPENDED if suspended else _LONGEST):
                    time.sleep(_BETWEEN)
                    continue
                self._given_up = holder
                _log.warning(
                    "process %s (%s) is %s while it measures; not waiting for it: latencies may be disturbed", pid,
                    measured.partition(" ")[2] or "unknown run", "suspended" if suspended else "busy",
                )  # fmt: skip
                return False
            else:
                return True

    def _holder(self) -> str:
        """The process that measures, and what."""
        measuring, _ = self._open()
        try:
            return Path(measuring.name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _wait_for(self, computing: IO[bytes], patience: float) -> bool:
        """Whether all processes have paused within `patience` seconds."""
        # The modification time of this file tells all processes when one last waited in vain.
        timed_out = Path(computing.name).with_name("timed-out")
        # If the file cannot be written (full disk, folder cleaned up), every process waits for itself.
        with contextlib.suppress(OSError):
            if abs(time.time() - timed_out.stat().st_mtime) < _REMEMBERED:
                patience = min(patience, _IMPATIENT)
        alone = _lock_exclusive_within(computing, patience)
        with contextlib.suppress(OSError):
            if alone:
                timed_out.unlink(missing_ok=True)
            else:
                timed_out.touch()
        return alone

    def _open(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._files is None:
            folder = self._folder or user_folder()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._files = (folder / "measuring").open("ab"), (folder / "computing").open("ab")
        return self._files


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
