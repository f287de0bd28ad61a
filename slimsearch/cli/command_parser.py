"""Argument parser of commands and scripts, with one-line errors and examples in the help."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from slimsearch.cli.exit_code import MISTAKE, say
from slimsearch.errors import SlimsearchError, did_you_mean


class CommandParser(argparse.ArgumentParser):
    """Argument parser whose help shows defaults, and whose errors are one line with exit code 2.

    Args:
        description: of the command.
        program: name in the help, such as ``slimsearch ls``; by default the name of the script.
        examples: options after `program` in the examples of the help.
    """

    def __init__(self, description: str, program: str | None = None, examples: Sequence[str] = ()) -> None:
        self._flags: list[str] = []
        lines = "".join(f"  {program} {example}\n" for example in examples)
        super().__init__(
            prog=program,
            description=f"{description[0].upper()}{description[1:].removesuffix('.')}.",
            epilog=f"examples:\n{lines}" if lines else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """As in argparse, with the default added to the help."""
        default = settings.get("default")
        if default is not None and default is not False and default not in ("", argparse.SUPPRESS):
            words = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
            settings["help"] = f"{settings.get('help', '')} (default: {words})".replace("%", "%%").strip()
        self._flags += [name for name in names if name.startswith("--")]
        return super().add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: .*?(--[^\s=]+)", message)
        say(message.removeprefix("argument ") + (did_you_mean(unknown[1], self._flags) if unknown else ""))
        sys.exit(MISTAKE)


def whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        with contextlib.suppress(ValueError):
            if (value := float(text)).is_integer():  # 1e3
                return int(value)
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def trial_numbers(text: str | None) -> list[int]:
    """Parse the value of ``--models 7,22``; empty without the option.

    Raises:
        SlimsearchError: the text is not a list of whole numbers.
    """
    try:
        return [int(one) for one in (text or "").split(",") if one.strip()]
    except ValueError:
        raise SlimsearchError(f"--models '{text}' is not a list of trial numbers such as 7,22") from None
