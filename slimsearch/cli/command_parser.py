"""Argument parser of commands and scripts, with one-line errors and examples in the help."""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
import sys
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from slimsearch.cli.exit_code import MISTAKE, say
from slimsearch.errors import SlimsearchError, did_you_mean


class CommandParser(argparse.ArgumentParser):
    """Argument parser whose help shows defaults, and whose errors are one line with exit code 2.

    Options with ``rare=True`` are in the help of ``--help-all`` alone.

    Args:
        description: of the command.
        program: name in the help, such as ``slimsearch ls``; by default the name of the script.
        examples: options after `program` in the examples of the help.
        needed: options without which the command does nothing, as they stand in its usage.
    """

    def __init__(
        self, description: str, program: str | None = None, examples: Sequence[str] = (), needed: str = ""
    ) -> None:
        self._flags: list[str] = []
        self._rare: set[argparse.Action] = set()
        self._needed = needed
        lines = "".join(f"  {program} {example}\n" for example in examples)
        super().__init__(
            prog=program,
            description=f"{description[0].upper()}{description[1:].removesuffix('.')}.",
            epilog=f"examples:\n{lines}" if lines else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def add_argument(
        self, *names: Any, group: str | None = None, rare: bool = False, values: bool = False,
        least: int | None = None, most: int | None = None, **settings: Any,
    ) -> argparse.Action:  # fmt: skip
        """As in argparse, with the default added to the help.

        Args:
            group: a heading of the help.
            rare: whether the option is in the help of ``--help-all`` alone.
            values: whether the option takes several values, separated by commas; it cannot be given twice then.
            least, most: of a whole number; None: no limit.
        """
        if values:
            settings["action"] = _Values
        if least is not None or most is not None:
            settings["type"] = functools.partial(_limited, least=least, most=most)
        default = settings.get("default")
        if default is not None and default is not False and default not in ("", argparse.SUPPRESS):
            words = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
            settings["help"] = f"{settings.get('help', '')} (default: {words})".replace("%", "%%").strip()
        self._flags += [name for name in names if name.startswith("--")]
        added = (
            super().add_argument(*names, **settings)
            if group is None
            else self._group(group).add_argument(*names, **settings)
        )
        if rare:
            self._hide(added)
        return added

    def format_help(self) -> str:
        """The help of the options that are used every day."""
        return self._help(self._rare)

    def format_help_all(self) -> str:
        """The help of all options."""
        return self._help(frozenset())

    def _help(self, hidden: Collection[argparse.Action]) -> str:
        formatter = self._get_formatter()
        formatter.add_text(f"usage: {self._short_usage()}")
        formatter.add_text(self.description)
        for group in self._action_groups:
            shown = [action for action in group._group_actions if action not in hidden]
            if shown:
                formatter.start_section(group.title)
                formatter.add_arguments(shown)
                formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def _short_usage(self) -> str:
        positional = [
            f"[{name}]" if action.nargs in ("?", "*") else name
            for action in self._actions
            if not action.option_strings and (name := str(action.metavar or action.dest.upper()))
        ]
        return " ".join(filter(None, [self.prog, *positional, self._needed, "[OPTION...]"]))

    def _group(self, title: str) -> argparse._ArgumentGroup:
        found = next((group for group in self._action_groups if group.title == title), None)
        return self.add_argument_group(title) if found is None else found

    def _hide(self, action: argparse.Action) -> None:
        if not self._rare:
            super().add_argument("--help-all", action=_HelpAll, help="show all options and exit")
        self._rare.add(action)

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: .*?(--[^\s=]+)", message)
        say(message.removeprefix("argument ") + (did_you_mean(unknown[1], self._flags) if unknown else ""))
        sys.exit(MISTAKE)


class _Values(argparse.Action):
    """Stores values that are separated by commas; a second option would replace those of the first."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, text: Any, option: str | None = None
    ) -> None:
        if getattr(namespace, self.dest) is not self.default:
            joined = f"{getattr(namespace, self.dest)},{text}"
            parser.error(f"{option} is given twice; separate several values by commas: {option} {joined}")
        setattr(namespace, self.dest, text)


class _HelpAll(argparse.Action):
    """Prints the help of all options and exits."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        assert isinstance(parser, CommandParser)
        parser._print_message(parser.format_help_all(), sys.stdout)
        parser.exit()


def whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        with contextlib.suppress(ValueError):
            if (value := float(text)).is_integer():  # 1e3
                return int(value)
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def _limited(text: str, *, least: int | None, most: int | None) -> int:
    value = whole_number(text)
    if least is not None and value < least:
        raise argparse.ArgumentTypeError(f"{value} is less than {least}")
    if most is not None and value > most:
        raise argparse.ArgumentTypeError(f"{value} is more than {most}")
    return value


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
