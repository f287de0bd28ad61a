"""Imported first by the fork server, and only there: ends it with the driver, also while it is still importing."""

from __future__ import annotations

import contextlib
import ctypes
import signal

_PR_SET_PDEATHSIG = 1  # see prctl(2); forks do not inherit it

with contextlib.suppress(OSError, AttributeError):  # Linux has it; elsewhere the process notices a little later
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
