"""Ctrl-C: the first one ends a run in order, a second one at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_CODE = 130

_SHOW_CURSOR = b"\x1b[?25h"


@contextlib.contextmanager
def second_one_ends() -> Iterator[None]:
    """While in this context, the first Ctrl-C raises KeyboardInterrupt, and a second one ends this process.

    Whatever it was writing then is as after ``kill -9``: a run can be resumed. After the first one this holds up to the
    end of the process. Where Ctrl-C means something else already, it is left as it is.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    interrupted = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            _end()
        interrupted = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        if not interrupted:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end() -> None:
    for process in multiprocessing.active_children():
        with contextlib.suppress(OSError):
            if process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        if sys.stdout.isatty():
            os.write(1, _SHOW_CURSOR)
        os.write(2, b"warning: interrupted again, ended at once; what was finished is kept, go on with --resume\n")
    os._exit(EXIT_CODE)
