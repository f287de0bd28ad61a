"""Exit codes of commands and scripts: 0, 2 after an error (one line on stderr), and 128 + its number after a signal.

Ctrl-C (SIGINT, 130), SIGTERM (143) and SIGHUP (129) end a run in the same way.
"""

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
_SECONDS_UNTIL_AGAIN = 0.1


def exit_code(run: Callable[[], object]) -> int:
    """Run a command or script and return its exit code."""
    received: list[int] = []
    try:
        with _signals_interrupt(received):
            run()
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
        return say(error)
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


@contextlib.contextmanager
def _signals_interrupt(received: list[int]) -> Iterator[None]:
    """In this context the first signal raises KeyboardInterrupt and is added to `received`; a second Ctrl-C kills.

    The run can be resumed, as after ``kill -9``. The handlers stay until the process ends. If another handler for
    Ctrl-C is installed, it is kept, and signals that are ignored, as by nohup, stay so.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    deferred: list[int] = []
    timers: list[threading.Timer] = []

    def later(number: int) -> None:
        deferred.clear()
        os.kill(os.getpid(), number)

    def handle(number: int, frame: FrameType | None) -> None:
        if (received or deferred) and number != signal.SIGINT:
            return  # schedulers send several
        if received or deferred:
            _end()
        if _cannot_be_interrupted(frame):
            deferred.append(number)
            timers.append(threading.Timer(_SECONDS_UNTIL_AGAIN, later, (number,)))
            timers[-1].start()
            return
        received.append(number)
        raise KeyboardInterrupt

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        """Python drops exceptions in callbacks, such as those of the garbage collector: interrupt once more."""
        if not issubclass(unraisable.exc_type, KeyboardInterrupt) or not received:
            hook(unraisable)
            return
        number = received.pop()
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()

    others = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))
    handled = [signal.SIGINT, *(n for n in others if n is not None and signal.getsignal(n) is signal.SIG_DFL)]
    before = {number: signal.signal(number, handle) for number in handled}
    hook, sys.unraisablehook = sys.unraisablehook, again
    try:
        yield
    finally:
        for timer in timers:  # a signal during the last lines of output: everything is done
            timer.cancel()
            timer.join()
        sys.unraisablehook = hook
        if not received:
            for number, handler in before.items():
                signal.signal(number, handler)


def _cannot_be_interrupted(frame: FrameType | None) -> bool:
    """Whether an exception in `frame` would do more than end the run, so that the signal has to wait.

    While PyTorch is imported, an exception in its C++ code would abort the process. While rich prints, an exception may
    leave its buffer open: the lines that follow would be lost, and the cursor would stay hidden. While a worker is
    requested from the fork server, an exception would cut the message, and the server would end with a traceback.
    """
    importing = torch = False
    while frame is not None and frame.f_code is not exit_code.__code__:
        module = str(frame.f_globals.get("__name__", ""))
        package = module.partition(".")[0]
        if package == "rich" or module == "multiprocessing.forkserver":
            return True
        importing |= frame.f_code.co_filename == "<frozen importlib._bootstrap>"
        torch |= package == "torch"
        frame = frame.f_back
    return importing and torch


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
