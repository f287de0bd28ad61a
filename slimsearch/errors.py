"""The root of all exceptions of Slimsearch, and one-line descriptions of any exception."""

from __future__ import annotations


class SlimsearchError(Exception):
    """An error that its message explains in one line: what is wrong, and what is allowed.

    The command line prints the message and exits with code 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of an exception's message; its class name where there is none."""
    try:
        message = str(error)
    except Exception:  # a user's exception may fail to describe itself
        message = ""
    return message.strip().partition("\n")[0].strip() or type(error).__name__


def describe_error(error: BaseException) -> str:
    """The class name of an exception and the first line of its message: ``ValueError: no such layer``."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"
