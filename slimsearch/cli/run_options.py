"""Options of a run on the command line and in YAML files: the fields of `Configuration`."""

from __future__ import annotations

import argparse
import dataclasses
import reprlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from slimsearch.cli.command_parser import CommandParser, number, whole_number
from slimsearch.errors import SlimsearchError, did_you_mean
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


def run_parser(
    program: str, description: str, examples: Sequence[str], *, without: Collection[str] = ("model", "elastic"),
    renamed: Mapping[str, tuple[str, str]] | None = None,
) -> CommandParser:  # fmt: skip
    """A parser with the fields of `Configuration`; options that are not given are None.

    Args:
        program, description, examples: of the command.
        without: fields that the command has no option for.
        renamed: the option and the help of fields that the command calls otherwise.
    """
    parser = CommandParser(description, program, examples)
    parser.add_argument(
        "--config", action="append", type=str, metavar="FILE",
        help="a YAML file with the options below, with _ for -, or a preset "
        f"({', '.join(presets())}); command-line options take precedence",
    )  # fmt: skip
    parser.add_argument(
        "--print-config", action="store_true",
        help="print the options and their help as a YAML file for --config, and exit",
    )  # fmt: skip
    parser.add_argument(
        "--resume", type=str, default=None, metavar="RUN_DIR", help="continue a run; needs no other option"
    )
    for option in dataclasses.fields(Configuration):
        if option.name in without:
            continue
        kind = option_type(option)
        name, text = (renamed or {}).get(option.name, (flag(option.name), option.metadata["help"]))
        if option.name in _BUILT_INS:
            text += f" (built in: {', '.join(built_ins(option.name))})"
        if option.default is not None and option.default is not False and option.default != "":
            text += f" (default: {option.default})"
        if option.name in RESUMABLE:
            text += " [also with --resume]"
        settings: dict[str, Any] = {"dest": option.name, "default": None, "help": text.replace("%", "%%")}
        if kind is bool:
            parser.add_argument(name, action="store_true", **settings)
        else:
            metavar = name.removeprefix("--").replace("-", "_").upper()
            parser.add_argument(name, type=_NUMBERS.get(kind, kind), metavar=metavar, **settings)
    return parser


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are set on the command line or in files of ``--config``."""
    found = {
        name: value for name, value in options.items() if name not in ("config", "print_config") and value is not None
    }
    for file in options["config"] or ():
        found = {**_from_file(file), **found}
    return found


def presets() -> list[str]:
    """Names of the presets for ``--config``."""
    return sorted(path.stem for path in _PRESETS.glob("*.yaml"))


def built_ins(name: str) -> list[str]:
    """Names of the built-ins of an option; empty for options without."""
    return built_in_names(_BUILT_INS[name]) if name in _BUILT_INS else []


def as_yaml(configuration: Configuration) -> str:
    """A file for ``--config``, with the help of each option as a comment."""
    lines = []
    for option in dataclasses.fields(configuration):
        value = getattr(configuration, option.name)
        if option.name == "storage" and value:
            from slimsearch.record.shared.storage import without_password

            value = without_password(value)
        lines += [f"# {option.metadata['help']}", yaml.safe_dump({option.name: value}, allow_unicode=True).rstrip()]
    return "\n".join(lines) + "\n"


def _from_file(name: str) -> dict[str, Any]:
    """Read the options in a YAML file, or of a preset.

    Raises:
        SlimsearchError: the file cannot be read, or has an unknown option.
    """
    path = Path(name)
    if not path.is_file() and name in presets():
        path = _PRESETS / f"{name}.yaml"
    try:
        values = read_yaml(path, exponents=False)
    except FileNotFoundError:
        similar, listed = did_you_mean(str(path), presets()), ", ".join(presets())
        raise SlimsearchError(f"--config: there is no file '{path}', presets: {listed}{similar}") from None
    if values is None:
        return {}
    kinds = {option.name: option_type(option) for option in dataclasses.fields(Configuration)} | {"resume": str}
    if not isinstance(values, dict):
        raise SlimsearchError(f"--config '{path}': {reprlib.repr(values)} is no mapping from options to values")
    for name in values:
        if name not in kinds:
            similar = did_you_mean(str(name).replace("-", "_"), kinds)
            found = f"--config '{path}': {reprlib.repr(name)} is not an option"
            raise SlimsearchError(f"{found}; options: {', '.join(kinds)}{similar}")
    options: dict[str, Any] = {}
    for name, value in values.items():
        kind = kinds[name]
        try:  # PyYAML reads 1e-3 as text
            options[name] = _NUMBERS[kind](value) if kind in _NUMBERS and isinstance(value, str) else value
        except argparse.ArgumentTypeError as error:
            raise SlimsearchError(f"--config '{path}': {name} {error}") from None
    if not isinstance(options.get("resume", ""), str):
        raise SlimsearchError(f"--config '{path}': resume {reprlib.repr(options['resume'])} is not a path")
    return {name: value for name, value in options.items() if value is not None}
