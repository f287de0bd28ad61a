"""The command line. A user's mistake is one line and exit code 2; nothing heavy is imported for ``--help``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from slimsearch.cli import interrupt
from slimsearch.cli.command_parser import say
from slimsearch.errors import SlimsearchError
from slimsearch.names import built_in_names

_PACKAGE = "slimsearch.cli.commands"
# As a user comes to need them; others follow.
_ORDER = ("check", "run", "retrain", "report", "compare", "ls", "predict", "export", "dashboard", "completion")


def commands() -> dict[str, ModuleType]:
    """The modules of all commands by their names."""
    names = built_in_names(_PACKAGE)
    ordered = [*(name for name in _ORDER if name in names), *(name for name in names if name not in _ORDER)]
    return {name: importlib.import_module(f"{_PACKAGE}.{name}") for name in ordered}


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run a command.

    Args:
        arguments: its name and its options; by default those of this process.
        program: how it was called, where that is not ``slimsearch`` and its name.

    Returns:
        the exit code: 0, 2 for a mistake, or 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_help())
            return 0 if words else 2
        if words[0] not in built_in_names(_PACKAGE):
            return say(f"unknown command '{words[0]}'; known: {', '.join(commands())}")
        command = importlib.import_module(f"{_PACKAGE}.{words[0]}")
        with interrupt.second_one_ends():
            command.run(vars(command.parser(program or f"slimsearch {words[0]}").parse_args(words[1:])))
        sys.stdout.flush()
    except SlimsearchError as error:
        return say(error)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that nothing fails at the exit either
        return 0
    except OSError as error:  # a full disk, a directory that was taken away: what is recorded stays
        return say(f"{error}; what was finished is kept, go on with --resume")
    except KeyboardInterrupt:
        return interrupt.EXIT_CODE
    return 0


def _help() -> str:
    known = commands()
    lines = "\n".join(f"  {name:<11} {module.HELP}" for name, module in known.items())
    return f"usage: slimsearch {{{','.join(known)}}} ...\n\n{lines}\n\nslimsearch COMMAND --help says more."


if __name__ == "__main__":
    sys.exit(main())
