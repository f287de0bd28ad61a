"""The run directory as a node of a Ray cluster sees it: the same folder, or a copy of what is needed of it.

What travels refers to the run directory by `pack`, in which every path in it is relative. A node that sees the driver's
folder works there; any other one has a folder of its own, brings there what a task refers to, and sends back what
the task has changed. Either way the driver has a task's files before it hears of what they are the result of.
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from slimsearch.evaluators import user_folder
from slimsearch.files import atomic

Contents = dict[str, NDArray[np.uint8]]
"""Bytes by path below a folder; as arrays, which are not copied when a process reads them from Ray's store."""

Handle = Any
"""Of the actor `Files`: Ray's have no type."""

_DAY = 24 * 3600.0


def pack(value: Any, root: Path | None) -> bytes:
    """`value` pickled, with every path below `root` relative to it."""
    packed = io.BytesIO()
    _Packer(packed, root).dump(value)
    return packed.getvalue()


class Files:
    """An actor on the driver's node that reads and writes below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, relative: str) -> Contents:
        """Every file below a folder; none where it is not there."""
        folder = self._inside(relative)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {str(path.relative_to(folder)): np.fromfile(path, np.uint8) for path in files}

    def write(self, relative: str, changed: Contents, names: list[str]) -> None:
        """Write the files that have changed, whole or not at all, and remove those that are not in `names`."""
        folder = self._inside(relative)
        _write(folder, changed)
        for path in list(folder.rglob("*")):
            if path.is_file() and str(path.relative_to(folder)) not in names:
                path.unlink()

    def _inside(self, relative: str) -> Path:
        path = (self._root / relative).resolve()
        if not path.is_relative_to(self._root.resolve()):
            raise ValueError(f"'{relative}' leaves the run directory")
        return path


@dataclass(frozen=True)
class Place:
    """Where a run's files are on this node.

    Attributes:
        root: of the run, on the driver's node; None: every node sees all paths.
        token: names the run; a file of that name in `root` tells that it is the driver's.
        files: the actor.
    """

    root: Path | None = None
    token: str = ""
    files: Handle = None

    @property
    def shared(self) -> bool:
        """Whether this node sees the driver's folder."""
        return self.root is None or (self.root / self.token).is_file()

    @property
    def path(self) -> Path:
        """The run directory, or this node's copy."""
        if self.root is None or self.shared:
            return self.root or Path()
        return _copies() / self.token

    def load(self, packed: bytes, own: Callable[[Any], Path | None] = lambda value: None) -> Any:
        """What `pack` was given, with this node's paths, and with the folders that they are brought here.

        Args:
            packed: from the driver.
            own: the folder among them that is to be written to: it is brought anew, others once for the whole node.
        """
        unpacker = _Unpacker(packed, self.path)
        value = unpacker.load()
        if not self.shared:
            for folder in unpacker.found:
                self._bring(folder, fresh=folder == own(value))
        return value

    def sender(self, folder: Path) -> Sender | None:
        """What sends a folder's changes to the driver; None where that is the driver's own."""
        return None if self.shared else Sender(self, folder)

    def _bring(self, target: Path, *, fresh: bool) -> None:
        import ray

        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_old(self.path)
        with FileLock(f"{target}.lock"):
            here = target.with_name(f"{target.name}.here")
            if here.exists() and not fresh:
                return
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            _write(target, ray.get(self.files.read.remote(str(target.relative_to(self.path)))))
            here.touch()


class Sender:
    """Sends what has changed in a folder since it was made, or since it last sent."""

    def __init__(self, place: Place, folder: Path) -> None:
        self._place, self._folder = place, folder
        self._sent = self._state()

    def send(self) -> None:
        """Returns when the driver's node has it."""
        import ray

        state = self._state()
        changed = {n: np.fromfile(self._folder / n, np.uint8) for n, seen in state.items() if self._sent.get(n) != seen}
        if changed or state.keys() != self._sent.keys():
            relative = str(self._folder.relative_to(self._place.path))
            ray.get(self._place.files.write.remote(relative, changed, list(state)))
        self._sent = state

    def _state(self) -> dict[str, tuple[int, int]]:
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        return {str(p.relative_to(self._folder)): (p.stat().st_mtime_ns, p.stat().st_size) for p in files}


class _Packer(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, root: Path | None) -> None:
        super().__init__(file)
        self._root = root

    def persistent_id(self, value: Any) -> str | None:
        if self._root is None or not isinstance(value, Path) or not value.is_relative_to(self._root):
            return None
        return str(value.relative_to(self._root))


class _Unpacker(pickle.Unpickler):
    def __init__(self, packed: bytes, root: Path) -> None:
        super().__init__(io.BytesIO(packed))
        self._root = root
        self.found: list[Path] = []

    def persistent_load(self, relative: str) -> Path:
        self.found.append(self._root / relative)
        return self.found[-1]


def _write(folder: Path, contents: Contents) -> None:
    for name, content in contents.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"'{name}' leaves '{folder}'")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            content.tofile(temporary)


def _copies() -> Path:
    return user_folder() / "runs"


def _remove_old(copy: Path) -> None:
    """Nobody tells a node that a run is over: what no task has used for a day is."""
    os.utime(copy)
    for other in copy.parent.iterdir():
        if other != copy and time.time() - other.stat().st_mtime > _DAY:
            shutil.rmtree(other, ignore_errors=True)
