"""The root of all exceptions of Slimsearch, and one-line descriptions of any exception."""

from __future__ import annotations

import contextlib
import difflib
from collections import deque
from collections.abc import Iterable, Iterator

# Longer lines of a message are cut: a message may show a whole array.
_LONGEST = 300


class SlimsearchError(Exception):
    """An error that its message explains in one line: what is wrong, and what is allowed.

    The command line prints the message and exits with code 2. Characters that do not print, as in the names of files,
    are shown escaped.
    """

    def __str__(self) -> str:
        return escaped(super().__str__())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'tpe'?`` with the most similar one of the `known` names, or nothing."""
    names = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f"; did you mean '{names[found[0]]}'?" if found else ""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, with control characters escaped; its class name where there is none."""
    try:
        message = str(error).strip().partition("\n")[0].strip()
    except BaseException:  # a user's exception may fail to describe itself
        message = ""
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]} ..."
    return escaped(message) or type(error).__name__


def reason(error: BaseException) -> str:
    """Why a file cannot be read or written, for messages that name it: an `OSError` without its number and path."""
    return (isinstance(error, OSError) and error.strerror) or first_line(error)


def escaped(text: str) -> str:
    """`text` with characters that do not print, such as those that control a terminal, as ``\\x1b``."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def describe_error(error: BaseException) -> str:
    """The class name of an exception and the first line of its message: ``ValueError: no such layer``."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"


@contextlib.contextmanager
def described(what: str, *passed: type[Exception]) -> Iterator[None]:
    """A context that turns any exception of a user's code, SystemExit too, into one line: ``what: ValueError: ...``.

    Args:
        what: what has failed.
        passed: exceptions that are raised as they are, beside `SlimsearchError`.

    Raises:
        SlimsearchError: the code in the context raised something else.
    """
    unchanged: tuple[type[Exception], ...] = (SlimsearchError, *passed)
    try:
        yield
    except unchanged:
        raise
    except (Exception, SystemExit) as error:
        raise SlimsearchError(f"{what}: {describe_error(error)}") from error


def related_errors(error: BaseException) -> Iterator[BaseException]:
    """An exception, its causes, those that were being handled, and the members of groups; each once.

    Causes may form a cycle, and a user's exception may override its attributes.
    """
    cause, context = (BaseException.__dict__[name].__get__ for name in ("__cause__", "__context__"))
    found, seen = deque([error]), {id(error)}
    while found:
        one = found.popleft()
        yield one
        members = BaseExceptionGroup.__dict__["exceptions"].__get__(one) if isinstance(one, BaseExceptionGroup) else ()
        for other in (cause(one), context(one), *members):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                found.append(other)
