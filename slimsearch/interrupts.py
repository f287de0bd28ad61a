"""Ctrl-C and other signals during a run: KeyboardInterrupt at a moment at which an exception only ends the run."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

_SECONDS_UNTIL_AGAIN = 0.1
_raised_in: list[list[int]] = []  # for each call of `interruptible`: the signals that raised KeyboardInterrupt


def interrupted() -> bool:
    """Whether a signal has raised KeyboardInterrupt, which libraries may have turned into another exception."""
    return any(_raised_in)


def interruptible(
    run: Callable[[], T],
    signals: Sequence[signal.Signals] = (signal.SIGINT,),
    received: list[int] | None = None,
    repeated: Callable[[int], None] | None = None,
) -> T:
    """Call `run`, in which a signal raises KeyboardInterrupt.

    Outside the main thread, or with another handler of Ctrl-C, `run` is only called.

    Args:
        run: returns the result.
        signals: the signals that are handled: SIGINT, and others where they have no handler and are not ignored.
        received: gets the number of a signal when it raises KeyboardInterrupt.
        repeated: is called with each further signal, which then raises nothing; the handlers stay after the first one.
            None: a further Ctrl-C raises KeyboardInterrupt again.

    Raises:
        KeyboardInterrupt: a signal came.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return run()
    raised = [] if received is None else received
    deferred: list[int] = []
    timers: list[threading.Timer] = []
    over = False

    def later(number: int) -> None:
        deferred.clear()
        os.kill(os.getpid(), number)

    def handle(number: int, frame: FrameType | None) -> None:
        if deferred or (raised and repeated is not None):
            if repeated is not None:
                repeated(number)
            return
        if over or _cannot_be_interrupted(frame):
            deferred.append(number)
            if not over:
                timers.append(threading.Timer(_SECONDS_UNTIL_AGAIN, later, (number,)))
                timers[-1].start()
            return
        raised.append(number)
        raise KeyboardInterrupt

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        """Python drops exceptions in callbacks, such as those of the garbage collector: interrupt once more."""
        if not issubclass(unraisable.exc_type, KeyboardInterrupt) or not raised:
            hook(unraisable)
            return
        number = raised.pop()
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()

    others = [number for number in signals if number != signal.SIGINT]
    handled = [signal.SIGINT, *(number for number in others if signal.getsignal(number) is signal.SIG_DFL)]
    before = {number: signal.signal(number, handle) for number in handled}
    hook, sys.unraisablehook = sys.unraisablehook, again
    _raised_in.append(raised)
    try:
        return run()
    finally:
        over = True
        _raised_in.pop()
        for timer in timers:
            timer.cancel()
            timer.join()
        sys.unraisablehook = hook
        if not raised or repeated is None:
            for number, handler in before.items():
                signal.signal(number, handler)
        if deferred and repeated is None:  # a command has done everything by then
            raise KeyboardInterrupt


def _cannot_be_interrupted(frame: FrameType | None) -> bool:
    """Whether an exception in `frame` would do more than end the run, so that the signal has to wait.

    While PyTorch is imported, an exception in its C++ code would abort the process. While rich prints, an exception may
    leave its buffer open: the lines that follow would be lost, and the cursor would stay hidden. While a worker is
    requested from the fork server, an exception would cut the message, and the server would end with a traceback.
    """
    importing = torch = False
    while frame is not None and frame.f_code is not interruptible.__code__:
        module = str(frame.f_globals.get("__name__", ""))
        package = module.partition(".")[0]
        if package == "rich" or module == "multiprocessing.forkserver":
            return True
        importing |= frame.f_code.co_filename == "<frozen importlib._bootstrap>"
        torch |= package == "torch"
        frame = frame.f_back
    return importing and torch
