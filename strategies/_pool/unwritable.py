"""Whether a trial failed because nothing can be written where its files go, which is no fault of the trial's."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

_REASONS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# A file that did not fit leaves room for smaller ones, once it is removed.
_SCARCE = 64 * 2**20
_PROBE = 64 * 1024


def unwritable(folder: Path, error: BaseException) -> str | None:
    """Why nothing can be written to `folder`, or None.

    Libraries have exceptions of their own for a full disk, with nothing in them to go by: it is tried.

    Args:
        folder: where the files of a trial go.
        error: what the trial raised.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as found:
        return os.strerror(found.errno) if found.errno in _REASONS else None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC and shutil.disk_usage(folder).free < _SCARCE:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return None
