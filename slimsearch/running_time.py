"""A clock that stands still while this process is suspended, as by Ctrl-Z, for time limits."""

from __future__ import annotations

import functools
import threading
import time

_TICK = 0.5
# A longer time between two readings was spent suspended.
_LONGEST = 5.0


class _Clock:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._suspended = 0.0
        threading.Thread(target=self._tick, name="running time", daemon=True).start()

    def seconds(self) -> float:
        with self._lock:
            now = time.monotonic()
            if now - self._last > _LONGEST:
                self._suspended += now - self._last
            self._last = now
            return now - self._suspended

    def _tick(self) -> None:
        while True:
            time.sleep(_TICK)
            self.seconds()


@functools.cache
def _clock() -> _Clock:
    return _Clock()


def running_seconds() -> float:
    """`time.monotonic`, less the seconds for which this process was suspended since the first call."""
    return _clock().seconds()


def is_suspended(pid: int) -> bool:
    """Whether a process is stopped, as by Ctrl-Z; False where that cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] in (b"T", b"t")
    except OSError:
        return False
