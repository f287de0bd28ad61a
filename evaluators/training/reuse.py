"""Reuse of trained weights: networks shared by several candidates, and initial weights from another network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression import Network
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.files import write_json

if TYPE_CHECKING:
    from torch import Tensor, nn

_DONE = "done.json"
_WAIT_SECONDS = 0.2


class NetworkCache:
    """A folder of trained or compressed networks, each identified by everything that it depends on.

    Several processes share it: one of them makes a network, and the others that need it wait. A process that is killed
    leaves no incomplete entry.

    Args:
        folder: created if missing.
        meter: of this process; a process that waits for a network still pauses for latency measurements.
    """

    def __init__(self, folder: Path, meter: Meter) -> None:
        self._folder, self._meter = folder, meter
        self.seconds_saved = 0.0
        """Time of the training of the networks found in the cache."""

    def get(
        self, depends_on: Mapping[str, Any], fresh: Callable[[], nn.Module], make: Callable[[], tuple[Network, int]]
    ) -> tuple[Network, int]:
        """The cached network and the epochs of its last training; made and stored if it is missing.

        Args:
            depends_on: all that determines the network, as plain JSON values.
            fresh: builds the uncompressed module of its architecture, to load the weights into.
            make: trains or compresses the network, and counts the epochs.
        """
        from filelock import FileLock, Timeout

        folder = self._entry(depends_on)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(folder / "lock"))
        while True:
            try:
                with lock.acquire(timeout=_WAIT_SECONDS):
                    return self._load_or_make(folder, depends_on, fresh, make)
            except Timeout:
                self._meter.pause_if_measuring()

    def __contains__(self, depends_on: Mapping[str, Any]) -> bool:
        """Whether the network is complete in the cache."""
        return _effort(self._entry(depends_on) / _DONE) is not None

    def _entry(self, depends_on: Mapping[str, Any]) -> Path:
        return self._folder / hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()[:20]

    def _load_or_make(
        self,
        folder: Path,
        depends_on: Mapping[str, Any],
        fresh: Callable[[], nn.Module],
        make: Callable[[], tuple[Network, int]],
    ) -> tuple[Network, int]:
        done = folder / _DONE
        effort = _effort(done)
        if effort is not None:
            seconds, epochs = effort
            self.seconds_saved += seconds
            return Network.load(fresh(), folder), epochs
        before = self._meter.training_seconds
        network, epochs = make()
        network.save(folder)
        seconds = self._meter.training_seconds - before
        write_json(done, {"seconds": seconds, "epochs": epochs, "depends_on": depends_on})
        return network, epochs


def _effort(done: Path) -> tuple[float, int] | None:
    """Seconds and epochs of the training, from an entry's description; None if it is missing or damaged."""
    try:
        described = json.loads(done.read_text(encoding="utf-8"))
        return float(described["seconds"]), int(described.get("epochs", 0))  # an older version wrote no epochs
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None


def copy_matching_weights(module: nn.Module, donor: Mapping[str, Tensor]) -> float:
    """Copy the weights of `donor` into the layers of `module` with the same names, in place.

    Where a tensor is wider or narrower in the donor, the common part is copied: the first channels (as in slimmable
    networks, Yu et al. 2019), the center of a kernel (as in Once-for-All, Cai et al. 2020). The rest keeps its values,
    as do layers with another number of dimensions.

    Args:
        module: a new network.
        donor: the state of a trained network.

    Returns:
        the share of the parameters of `module` that was copied, 0 to 1.
    """
    import torch

    own = module.state_dict()
    layers: dict[str, list[str]] = {}
    for name in own:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    parameters = {name: value.numel() for name, value in module.named_parameters()}
    copied = 0
    with torch.no_grad():
        for names in layers.values():
            if any(name not in donor or donor[name].ndim != own[name].ndim for name in names):
                continue
            for name in names:
                in_own, in_donor = _common_part(own[name].shape, donor[name].shape)
                own[name][in_own].copy_(donor[name][in_donor])
                copied += own[name][in_own].numel() if name in parameters else 0
    return copied / sum(parameters.values()) if parameters else 0.0


def _common_part(own: Sequence[int], donor: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the common part in both tensors."""
    slices = []
    for dimension, (a, b) in enumerate(zip(own, donor, strict=True)):
        size = min(a, b)
        first = ((a - size) // 2, (b - size) // 2) if dimension > 1 else (0, 0)  # kernels are centered
        slices.append((slice(first[0], first[0] + size), slice(first[1], first[1] + size)))
    return tuple(one for one, _ in slices), tuple(other for _, other in slices)
