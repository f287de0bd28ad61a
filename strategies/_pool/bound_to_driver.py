"""Ends the fork server with the driver; the fork server imports this module first, so that it also holds on startup."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # see prctl(2); forks do not inherit it

with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere the process ends a little later
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
if os.environ.get("SLIMSEARCH_DRIVER", str(os.getppid())) != str(os.getppid()):  # it has ended already
    os._exit(0)
