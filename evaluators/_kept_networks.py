"""Networks that several candidates go through, made once: trained parents, and what stages made of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression import Network
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.files import write_json

if TYPE_CHECKING:
    from torch import nn

_DONE = "done.json"
_WAIT_SECONDS = 0.2


class KeptNetworks:
    """A folder of networks, each known by everything that it depends on.

    Processes share it: one of them makes a network, and others that need it wait. One that is killed leaves nothing
    that is taken for a network.

    Args:
        folder: made if need be.
        meter: of this process, so that nobody who measures waits for one who waits.
    """

    def __init__(self, folder: Path, meter: Meter) -> None:
        self._folder, self._meter = folder, meter
        self.seconds_saved = 0.0
        """How long the making of those took that were there already."""

    def get(
        self, depends_on: Mapping[str, Any], fresh: Callable[[], nn.Module], make: Callable[[], Network]
    ) -> Network:
        """The network that `make` gives, or gave before.

        Args:
            depends_on: plain JSON, whatever decides what comes out.
            fresh: the unchanged module of its architecture, to load it into.
            make: trains or compresses.
        """
        from filelock import FileLock, Timeout

        key = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()[:20]
        folder = self._folder / key
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(folder / "lock"))
        while True:
            try:
                with lock.acquire(timeout=_WAIT_SECONDS):
                    return self._made(folder, depends_on, fresh, make)
            except Timeout:
                self._meter.pause_if_measuring()

    def _made(
        self, folder: Path, depends_on: Mapping[str, Any], fresh: Callable[[], nn.Module], make: Callable[[], Network]
    ) -> Network:
        done = folder / _DONE
        took = _took(done)
        if took is not None:
            self.seconds_saved += took
            return Network.load(fresh(), folder)
        started = time.perf_counter()
        network = make()
        network.save(folder)
        write_json(done, {"seconds": time.perf_counter() - started, "depends_on": depends_on})
        return network


def _took(done: Path) -> float | None:
    """How long the making took of what is there; None: nothing is, or its description is damaged."""
    try:
        return float(json.loads(done.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None
