"""Memory that this process may still use, and the refusal of data sets that need more."""

from __future__ import annotations

import contextlib
import math
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from slimsearch.errors import SlimsearchError

_CGROUPS = Path("/sys/fs/cgroup")
_LATER = 2**28  # address space of threads, and of modules that are imported later
_USEFUL_SIDE = 8


@contextlib.contextmanager
def memory_for(name: str, count: int, shape: Sequence[int], copies: int) -> Iterator[None]:
    """A context that reads or copies inputs; inputs that do not fit into memory are refused before that.

    Args:
        name: of the data set.
        count: number of inputs.
        shape: of each, in bytes, such as (C, H, W) of an image.
        copies: number of copies of all inputs that are made.

    Raises:
        SlimsearchError: the inputs do not fit, or memory runs out in this context.
    """
    available, needed = _available(), copies * count * math.prod(shape)
    try:
        if needed > available:
            raise MemoryError
        yield
    except MemoryError as error:
        available = min(available, _available())
        if len(shape) != 3:
            raise SlimsearchError(
                f"data set '{name}': {count:,} examples of {'x'.join(map(str, shape))} numbers need {_text(needed)} of "
                f"memory, and {_text(available)} are available; use fewer examples"
            ) from error
        channels, height, width = shape
        side = int((available / max(1, copies * count * channels)) ** 0.5)
        smaller = (
            f"--image-size {side} or less" if _USEFUL_SIDE <= side < min(height, width) else "a smaller --image-size"
        )
        raise SlimsearchError(
            f"data set '{name}': {count:,} images of {width}x{height} pixels and {channels} channels need "
            f"{_text(needed)} of memory, and {_text(available)} are available; pass {smaller}, or "
            "use fewer images"
        ) from error


def _available() -> int:
    """Bytes that this process can use: the least that the machine, its control groups and ``ulimit -v`` leave."""
    left = [psutil.virtual_memory().available, *_left_in_cgroups()]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        left.append(limit - psutil.Process().memory_info().vms - _LATER)
    return max(0, min(left))


def _left_in_cgroups() -> Iterator[int]:
    """Bytes left below the limit of each control group of this process, such as that of a container."""
    try:
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, own in lines:
        if controllers == "":  # version 2
            root, names = _CGROUPS, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = _CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = root / own.strip("/")
        for group in (folder, *folder.parents):
            with contextlib.suppress(OSError, ValueError):  # there is none, or "max"
                most, used = (int((group / name).read_text()) for name in names)
                yield most - used + _cached(group / "memory.stat")


def _cached(statistics: Path) -> int:
    """Bytes of cached files, which the kernel gives up first."""
    entries = dict(line.split(" ", 1) for line in statistics.read_text().splitlines())
    return int(entries.get("inactive_file", 0)) + int(entries.get("active_file", 0))


def _text(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
