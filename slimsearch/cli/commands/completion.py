"""``slimsearch completion``: completion of commands, options and names in a shell."""

from __future__ import annotations

import argparse
from typing import Any

from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.run_options import built_ins, presets
from slimsearch.errors import SlimsearchError

HELP = "print a script with which bash, zsh or tcsh completes commands, options and built-in names"
_EXAMPLES = ("bash > ~/.local/share/bash-completion/completions/slimsearch", "zsh > ~/.zfunc/_slimsearch")
_FOLDERS = ("run_dir", "runs", "folder", "to", "data_root", "resume")
_FILES = ("file", "images", "json", "picture", "found", "architectures")


def parser(program: str) -> CommandParser:
    found = CommandParser(HELP, program, _EXAMPLES)
    found.add_argument("shell", help="bash, zsh or tcsh")
    return found


def run(options: dict[str, Any]) -> None:
    import shtab

    shells = [shell for shell in shtab.SUPPORTED_SHELLS if shell in ("bash", "zsh", "tcsh")]
    if options["shell"] not in shells:
        raise SlimsearchError(f"shell '{options['shell']}' is none of {', '.join(shells)}")
    print(shtab.complete(_all_commands(), options["shell"]))


def _all_commands() -> argparse.ArgumentParser:
    """All commands as subparsers of one parser, whose options list their built-in names for shtab."""
    import shtab

    from slimsearch.cli.main import commands

    parser = argparse.ArgumentParser("slimsearch")
    subparsers = parser.add_subparsers()
    for name, module in commands().items():
        sub = subparsers.add_parser(name, help=module.HELP)
        for action in module.parser(f"slimsearch {name}")._actions:
            if "--help" in action.option_strings:
                continue
            settings: dict[str, Any] = {"help": (action.help or "").partition(" (built in")[0]}
            offered = presets() if action.dest == "config" else built_ins(action.dest)
            if action.nargs == 0:
                settings["action"] = "store_true"
            elif offered:
                settings["choices"] = offered
            elif action.nargs is not None:
                settings["nargs"] = action.nargs
            added = sub.add_argument(*(action.option_strings or [action.dest]), **settings)
            if action.dest in _FOLDERS:
                added.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.dest in _FILES:
                added.complete = shtab.FILE  # type: ignore[attr-defined]
    return parser
