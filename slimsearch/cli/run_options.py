"""The options of a run on the command line and in files: those of `Configuration`, by the same names."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from slimsearch.cli.command_parser import CommandParser, number, whole_number
from slimsearch.errors import SlimsearchError
from slimsearch.names import built_in_names
from slimsearch.options.configuration import RESUMABLE, Configuration, flag, option_type
from slimsearch.reading import read_yaml

_BUILT_INS = {
    "space": "slimsearch.search_spaces",
    "strategy": "slimsearch.strategies",
    "sampler": "slimsearch.strategies.samplers",
    "scheduler": "slimsearch.strategies.schedulers",
    "dataset": "slimsearch.evaluators.datasets",
    "log": "slimsearch.report.loggers",
}
_PRESETS = Path(__file__).parents[1] / "options" / "presets"
_NUMBERS: dict[Any, Any] = {int: whole_number, float: number}


def run_parser(program: str, description: str, examples: Sequence[str]) -> CommandParser:
    """Every option of a run, by the fields of `Configuration`; what is not given stays None."""
    parser = CommandParser(program, description, examples)
    parser.add_argument(
        "--config", action="append", type=str, metavar="FILE",
        help="a YAML file with options, by the names below with _ for -, or a preset "
        f"({', '.join(presets())}); what is given here as well counts more",
    )  # fmt: skip
    parser.add_argument(
        "--print-config", action="store_true",
        help="print the options as a YAML file for --config, with what each is for, and do nothing else",
    )  # fmt: skip
    parser.add_argument(
        "--resume", type=str, default=None, metavar="RUN_DIR", help="go on with a run; needs nothing else"
    )
    for option in dataclasses.fields(Configuration):
        kind = option_type(option)
        text = option.metadata["help"]
        if option.name in _BUILT_INS:
            text += f" (built in: {', '.join(built_ins(option.name))})"
        if option.default not in (None, "", False):
            text += f" (default: {option.default})"
        if option.name in RESUMABLE:
            text += " [also with --resume]"
        settings: dict[str, Any] = {"dest": option.name, "default": None, "help": text.replace("%", "%%")}
        if kind is bool:
            parser.add_argument(flag(option.name), action="store_true", **settings)
        else:
            parser.add_argument(
                flag(option.name), type=_NUMBERS.get(kind, kind), metavar=option.name.upper(), **settings
            )
    return parser


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run that are not left open, those in files of options too."""
    found = {
        name: value for name, value in options.items() if name not in ("config", "print_config") and value is not None
    }
    for file in options["config"] or ():
        found = {**_from_file(file), **found}
    return found


def presets() -> list[str]:
    """Names of the files of options that come with Slimsearch."""
    return sorted(path.stem for path in _PRESETS.glob("*.yaml"))


def built_ins(name: str) -> list[str]:
    """Names of what comes with Slimsearch for an option; empty where it has no such names."""
    return built_in_names(_BUILT_INS[name]) if name in _BUILT_INS else []


def as_yaml(configuration: Configuration) -> str:
    """A file for ``--config``: each option with what it is for."""
    lines = []
    for option in dataclasses.fields(configuration):
        value = getattr(configuration, option.name)
        lines += [f"# {option.metadata['help']}", yaml.safe_dump({option.name: value}, allow_unicode=True).rstrip()]
    return "\n".join(lines) + "\n"


def _from_file(name: str) -> dict[str, Any]:
    """The options in a YAML file, or of a preset, each as it would be on the command line.

    Raises:
        SlimsearchError: it cannot be read, or something in it is no option.
    """
    path = Path(name)
    if not path.is_file() and name in presets():
        path = _PRESETS / f"{name}.yaml"
    try:
        values = read_yaml(path)
    except FileNotFoundError:
        raise SlimsearchError(f"--config: there is no file '{path}', presets: {', '.join(presets())}") from None
    if values is None:
        return {}
    kinds = {option.name: option_type(option) for option in dataclasses.fields(Configuration)} | {"resume": str}
    if not isinstance(values, dict) or not values.keys() <= kinds.keys():
        found = (
            reprlib.repr(values) if not isinstance(values, dict) else reprlib.repr(next(iter(values.keys() - kinds)))
        )
        raise SlimsearchError(f"--config '{path}': {found} is no option; options: {', '.join(kinds)}")
    options: dict[str, Any] = {}
    for name, value in values.items():
        kind = kinds[name]
        try:  # YAML has 1e-3 for a text
            options[name] = kind(value) if kind in (int, float) and isinstance(value, str) else value
        except ValueError:
            raise SlimsearchError(f"--config '{path}': {name} {reprlib.repr(value)} is no number") from None
    if not isinstance(options.get("resume", ""), str):
        raise SlimsearchError(f"--config '{path}': resume {reprlib.repr(options['resume'])} is no path")
    return {name: value for name, value in options.items() if value is not None}
