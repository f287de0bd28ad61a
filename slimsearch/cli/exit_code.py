"""Exit codes of commands and scripts: 0, 2 after an error (one line on stderr), and 128 + its number after a signal.

Ctrl-C (SIGINT, 130), SIGTERM (143) and SIGHUP (129) end a run in the same way.
"""

from __future__ import annotations

import contextlib
import os
import reprlib
import signal
import sys
from collections.abc import Callable

from slimsearch.errors import SlimsearchError, escaped, reason
from slimsearch.interrupts import interruptible

MISTAKE, INTERRUPTED = 2, 130

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_SHOW_CURSOR = b"\x1b[?25h"


def exit_code(run: Callable[[], object]) -> int:
    """Run a command or script and return its exit code."""
    received: list[int] = []
    try:
        interruptible(run, SIGNALS, received, _interrupted_again)
        sys.stdout.flush()
    except BaseException as error:
        if received:  # libraries may have turned the interrupt into another exception
            return 128 + received[0]
        return _code(error)
    return 0


def _code(error: BaseException) -> int:
    """The exit code after an exception.

    Raises:
        BaseException: `error`, if it is none that a user can mend.
    """
    if isinstance(error, SlimsearchError):
        return say(error)
    if isinstance(error, BrokenPipeError):  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails when it flushes at the exit
        return 0
    if isinstance(error, OSError):
        return say(error if error.filename is None else f"'{error.filename}': {reason(error)}")
    if isinstance(error, UnicodeError):
        return say(f"a name or text is not UTF-8: {reprlib.repr(getattr(error, 'object', ''))}")
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    raise error


def say(message: object) -> int:
    """Print an error as one line, with control characters escaped, and return its exit code."""
    with contextlib.suppress(OSError):  # its reader may have ended
        print("error: " + escaped(" ".join(str(message).split())), file=sys.stderr)
    return MISTAKE


def _interrupted_again(number: int) -> None:
    """After a second Ctrl-C, end at once: the run can be resumed, as after ``kill -9``."""
    if number == signal.SIGINT:  # schedulers send several of the others
        _end()


def _end() -> None:
    from multiprocessing import active_children

    for process in active_children():
        with contextlib.suppress(OSError):
            if process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        if sys.stdout.isatty():
            os.write(1, _SHOW_CURSOR)
        os.write(2, b"warning: interrupted again, ended at once; finished trials are kept, continue with --resume\n")
    os._exit(INTERRUPTED)
