"""The run directory on the nodes of a Ray cluster: the driver's folder, or a copy of the files that tasks need.

`pack` pickles values with paths relative to the run directory. A node that sees the driver's folder works there. Any
other node has its own folder: it downloads the folders that a task refers to, and uploads the files that the task has
changed. In both cases the driver has a task's files before the task's result.
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

from slimsearch.files import atomic
from slimsearch.temporary import user_folder

Contents = dict[str, NDArray[np.uint8]]
"""Bytes by path below a folder; as arrays, which processes read from Ray's store without a copy."""

ActorHandle = Any
"""A handle of a Ray actor, which has no type."""

_DAY = 24 * 3600.0


def pack(value: Any, root: Path | None) -> bytes:
    """`value` pickled, with every path below `root` relative to it."""
    packed = io.BytesIO()
    _Packer(packed, root).dump(value)
    return packed.getvalue()


class FileServer:
    """An actor on the driver's node that reads and writes below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, relative: str) -> Contents:
        """All files below a folder; none if it does not exist."""
        folder = self._inside(relative)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {str(path.relative_to(folder)): np.fromfile(path, np.uint8) for path in files}

    def write(self, relative: str, changed: Contents, names: list[str]) -> None:
        """Write the changed files, each atomically, and remove files that are not in `names`."""
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
class NodeFolder:
    """The folder of a run on this node.

    Attributes:
        root: the run directory on the driver's node; None if every node sees all paths.
        token: a unique name; a file of that name in `root` identifies the driver's folder.
        server: a `FileServer`.
    """

    root: Path | None = None
    token: str = ""
    server: ActorHandle = None

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
        """Unpack a value with this node's paths, and download the folders that it refers to.

        Args:
            packed: from `pack`.
            own: gives the folder that the task writes to, which is downloaded again; others are downloaded once.
        """
        unpacker = _Unpacker(packed, self.path)
        value = unpacker.load()
        if not self.shared:
            for folder in unpacker.found:
                self._download(folder, fresh=folder == own(value))
        return value

    def uploader(self, folder: Path) -> Uploader | None:
        """An uploader of a folder's changes to the driver; None where the folder is the driver's own."""
        return None if self.shared else Uploader(self, folder)

    def _download(self, target: Path, *, fresh: bool) -> None:
        import ray

        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_old(self.path)
        with FileLock(f"{target}.lock"):
            here = target.with_name(f"{target.name}.here")
            if here.exists() and not fresh:
                return
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            _write(target, ray.get(self.server.read.remote(str(target.relative_to(self.path)))))
            here.touch()


class Uploader:
    """Uploads the files of a folder that have changed since the last upload or the start."""

    def __init__(self, node: NodeFolder, folder: Path) -> None:
        self._node, self._folder = node, folder
        self._sent = self._state()

    def send(self) -> None:
        """Upload the changed files; returns when the driver's node has them."""
        import ray

        state = self._state()
        names = [name for name, file_state in state.items() if self._sent.get(name) != file_state]
        changed = {name: np.fromfile(self._folder / name, np.uint8) for name in names}
        if changed or state.keys() != self._sent.keys():
            relative = str(self._folder.relative_to(self._node.path))
            ray.get(self._node.server.write.remote(relative, changed, list(state)))
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
    """Remove copies that no task has used for a day, since nodes do not learn of the end of a run."""
    os.utime(copy)
    for other in copy.parent.iterdir():
        if other != copy and time.time() - other.stat().st_mtime > _DAY:
            shutil.rmtree(other, ignore_errors=True)
