"""Entry point of the command line. ``--help`` imports neither torch nor NNI."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

try:
    from slimsearch.cli.exit_code import MISTAKE, exit_code, say
    from slimsearch.errors import did_you_mean
    from slimsearch.names import built_in_names
except KeyboardInterrupt:  # Ctrl-C while the program is loaded
    raise SystemExit(130) from None

_PACKAGE = "slimsearch.cli.commands"
# In order of use; others follow.
_ORDER = (
    "check", "run", "watch", "compress", "retrain", "report", "compare", "ls", "predict", "explain", "export", "device",
    "dashboard",
)  # fmt: skip


def commands() -> dict[str, ModuleType]:
    """The modules of all commands, by name."""
    names = built_in_names(_PACKAGE)
    ordered = [*(name for name in _ORDER if name in names), *(name for name in names if name not in _ORDER)]
    return {name: importlib.import_module(f"{_PACKAGE}.{name}") for name in ordered}


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run a command.

    Args:
        arguments: its name and its options; by default those of this process.
        program: name in the help, if not ``slimsearch`` and the name of the command.

    Returns:
        the exit code, see `exit_code`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        shown = exit_code(lambda: print(_help()))
        return shown if words else MISTAKE
    if words[0] == "--version":
        import slimsearch

        return exit_code(lambda: print(f"slimsearch {slimsearch.__version__}"))
    if words[0] not in built_in_names(_PACKAGE):
        return say(f"unknown command '{words[0]}'; known: {', '.join(commands())}{did_you_mean(words[0], commands())}")

    for word in words:
        if word != word.encode("utf-8", "ignore").decode():
            return say(f"'{word}' is not UTF-8")

    def run() -> None:
        command = importlib.import_module(f"{_PACKAGE}.{words[0]}")
        command.run(vars(command.parser(program or f"slimsearch {words[0]}").parse_args(words[1:])))

    return exit_code(run)


def _help() -> str:
    known = commands()
    lines = "\n".join(f"  {name:<11} {module.HELP}" for name, module in known.items())
    return (
        f"usage: slimsearch COMMAND [OPTION...]\n\n{lines}\n\n"
        "slimsearch COMMAND --help shows its options, slimsearch --version the version."
    )


if __name__ == "__main__":
    sys.exit(main())
