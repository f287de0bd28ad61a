"""What a training frees, kept in the process for its next step."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

# Parameters of glibc's `mallopt`, see its manual page.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**30  # bytes
# Where glibc's thresholds, which move by themselves until somebody sets them, come to rest.
_TRIM_AFTER, _MMAP_AFTER = 2**26, 2**25


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Large blocks that are freed stay in this process until the end, and are given back to the system then.

    Each step of a training allocates and frees the same megabytes. Where they are more than 64, the C library may
    by default ask the system for them anew each time, which fills them with zeros, a page at a time, as they are first
    used: up to a third of the seconds of a run. Without effect where the C library is not glibc.
    """
    library: Any = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _NEVER)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _MMAP_AFTER)
        library.mallopt(_TRIM_THRESHOLD, _TRIM_AFTER)
        library.malloc_trim(0)
