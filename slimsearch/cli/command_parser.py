"""The parser of a command: a mistake is one line, and its examples stand at the end of its help."""

from __future__ import annotations

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import NoReturn

from jsonargparse import ArgumentParser

from slimsearch.errors import SlimsearchError


class CommandParser(ArgumentParser):
    """Of one command.

    Args:
        program: how it is called, such as ``slimsearch ls``.
        description: what it does, with or without a capital and a full stop.
        examples: its words after `program`.
    """

    def __init__(self, program: str, description: str, examples: Sequence[str]) -> None:
        lines = "".join(f"  {program} {example}\n" for example in examples)
        super().__init__(
            prog=program,
            description=f"{description[0].upper()}{description[1:].removesuffix('.')}.",
            epilog=f"examples:\n{lines}",
            formatter_class=RawDescriptionHelpFormatter,
            default_env=False,
        )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        say(message)
        sys.exit(2)


def say(message: object) -> int:
    """The one line, and the exit code of a mistake; what names of files and labels would do to a terminal is spelt."""
    line = " ".join(str(message).split())
    print("error: " + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line), file=sys.stderr)
    return 2


def whole_number(text: str) -> int:
    """In place of `int`, of which jsonargparse has its own: one that fails on a number of 400 digits."""
    return int(text)


def number(text: str) -> float:
    """In place of `float`, as `whole_number`."""
    return float(text)


def trial_numbers(text: str | None) -> list[int]:
    """Of ``--models 7,22``; none where it is not given.

    Raises:
        SlimsearchError: it is no such list.
    """
    try:
        return [int(one) for one in (text or "").split(",") if one.strip()]
    except ValueError:
        raise SlimsearchError(f"--models '{text}' is no list of numbers such as 7,22") from None
