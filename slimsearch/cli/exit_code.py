"""Exit codes of commands and scripts: 0, 2 after an error (one line on stderr), and 130 after Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import reprlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from slimsearch.errors import SlimsearchError, escaped

MISTAKE, INTERRUPTED = 2, 130

_SHOW_CURSOR = b"\x1b[?25h"


def exit_code(run: Callable[[], object], advice: str = "") -> int:
    """Run a command or script and return its exit code.

    Args:
        run: the command or script.
        advice: ends the line about a full disk or a missing directory.
    """
    try:
        with _second_interrupt_ends():
            run()
        sys.stdout.flush()
    except SlimsearchError as error:
        return say(error)
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails when it flushes at the exit
        return 0
    except OSError as error:
        return say(f"{error}{advice}")
    except UnicodeError as error:
        return say(f"a name or text is not UTF-8: {reprlib.repr(getattr(error, 'object', ''))}{advice}")
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def say(message: object) -> int:
    """Print an error as one line, with control characters escaped, and return its exit code."""
    print("error: " + escaped(" ".join(str(message).split())), file=sys.stderr)
    return MISTAKE


@contextlib.contextmanager
def _second_interrupt_ends() -> Iterator[None]:
    """In this context the first Ctrl-C raises KeyboardInterrupt, and a second one kills the process.

    The run can be resumed, as after ``kill -9``. The handler stays until the process ends. If another handler for
    Ctrl-C is installed, it is kept.
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
    from multiprocessing import active_children

    for process in active_children():
        with contextlib.suppress(OSError):
            if process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        if sys.stdout.isatty():
            os.write(1, _SHOW_CURSOR)
        os.write(2, b"warning: interrupted again, ended at once; what was finished is kept, go on with --resume\n")
    os._exit(INTERRUPTED)
