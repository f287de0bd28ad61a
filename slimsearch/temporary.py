"""Temporary folders: one that all processes of a user share, and in it one of each process that starts others.

What a killed process has left there is removed by the next one. Boards import this module without the package filelock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING

from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from filelock import FileLock

# Python removes its own folder in that of the process at -100 (see multiprocessing.util.get_temp_dir).
_EXIT_PRIORITY = -150
_PATIENCE = 1.0  # seconds for other processes that create or remove folders
# Bytes below a temporary folder in the path of a socket, and in the longest path of a socket.
_SOCKET = len("/slimsearch-4294967295/p-12345678/pymp-12345678/listener-12345678")
_LONGEST = 103


@dataclass(frozen=True)
class _Own:
    path: Path
    lock: FileLock  # held as long as this process lives


_own: dict[Path, _Own] = {}


def user_folder(temporary: Path | None = None) -> Path:
    """The folder that all processes of one user share, accessible to that user alone; created if missing.

    Args:
        temporary: the folder that it is in; by default the temporary folder of this process or of the one that started
            it.

    Raises:
        SlimsearchError: it belongs to another user, or is a link.
    """
    name = f"slimsearch-{os.getuid()}"
    temporary = temporary or Path(tempfile.gettempdir())
    folder = temporary.parent if temporary.parent.name == name else temporary / name  # see `process_folder`
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise SlimsearchError(f"'{folder}' belongs to another user: remove it, or set TMPDIR to another folder")
    return folder


def process_folder(temporary: Path | None = None) -> Path:
    """The folder for temporary files of this process and of those that it starts, removed when this process ends.

    Args:
        temporary: see `user_folder`.

    Raises:
        OSError: it cannot be created.
    """
    from filelock import FileLock, Timeout

    shared = user_folder(temporary)
    if shared in _own and _own[shared].path.is_dir():
        return _own[shared].path
    with contextlib.ExitStack() as opened:
        try:
            opened.enter_context(FileLock(shared / "processes.lock", timeout=_PATIENCE))
        except Timeout:  # another process is suspended there
            pass
        else:
            _remove_left(shared)
        folder = Path(tempfile.mkdtemp(prefix="p-", dir=shared))
        lock = FileLock(_lock_of(folder))
        lock.acquire(timeout=_PATIENCE)
    _own[shared] = _Own(folder, lock)
    Finalize(None, _remove, args=(folder,), exitpriority=_EXIT_PRIORITY)
    return folder


def socket_folder() -> Path:
    """A folder like `process_folder` whose path is short enough for the sockets in it.

    Raises:
        SlimsearchError: there is none.
    """
    wanted = Path(tempfile.gettempdir())
    reason = "its path is too long"
    for temporary in (wanted, Path("/tmp"), Path("/var/tmp")):
        if len(os.fsencode(temporary)) + _SOCKET > _LONGEST:
            continue
        try:
            return process_folder(temporary)
        except (OSError, SlimsearchError) as error:
            reason = str(error)
    raise SlimsearchError(
        f"no worker process can be started with TMPDIR '{wanted}': {reason}; set TMPDIR to another one"
    )


def _remove_left(shared: Path) -> None:
    """Remove the folders of processes that no longer live."""
    from filelock import FileLock, Timeout

    for folder in [path for path in shared.glob("p-*") if path.is_dir()]:
        with contextlib.suppress(OSError, Timeout), FileLock(_lock_of(folder), timeout=0):
            _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        _lock_of(folder).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
