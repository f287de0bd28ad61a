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
from slimsearch.options.configuration import BUILT_INS, RESUMABLE, Configuration, flag, option_type
from slimsearch.reading import read_yaml

GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "what to search": (
        ("space", "strategy", "sampler"),
        (
            "architectures", "scheduler", "evaluator", "model", "elastic", "subnets", "supernet_epochs",
            "supernet_sampling",
        ),
    ),
    "data": (
        ("dataset", "image_size", "target_column", "task"),
        (
            "group_by", "data_root", "download", "input_kind", "class_weights", "label_smoothing", "drop_duplicates",
            "mean", "std",
        ),
    ),
    "objectives and limits": (
        ("objectives", "max_latency_ms", "max_size_kib", "min_accuracy", "target", "prefer"),
        (
            "objective", "weights", "targets", "max_ram_kib", "max_flash_kib", "max_params", "max_macs", "metrics",
            "latency_batch", "latency_threads", "latency", "runtime", "device_host",
        ),
    ),
    "compression": (("compress", "max_drop", "co_search"), ("top_k", "int8_target")),
    "how long": (("trials", "epochs", "timeout"), ("stop_at", "patience", "trial_timeout", "retries", "repeats")),
    "training": (
        (),
        (
            "fit", "score", "lightning", "search_hyperparameters", "precision", "training_threads", "batch_size",
            "learning_rate", "warm_up", "weight_decay", "init", "epoch_images", "normalise", "augment",
        ),
    ),
    "where it runs": (
        ("workers", "device"),
        ("ray_address", "cpus_per_trial", "gpus_per_trial", "keep_dashboard", "storage", "study", "heartbeat"),
    ),
    "output": (("run_dir", "seed"), ("log",)),
}  # fmt: skip
"""Headings of the help: the options of ``--help``, and those that ``--help-all`` adds."""
_PRESETS = Path(__file__).parents[1] / "options" / "presets"
_NUMBERS: dict[Any, Any] = {int: whole_number, float: number}


def run_parser(
    program: str, description: str, examples: Sequence[str], *, without: Collection[str] = ("model", "elastic"),
    renamed: Mapping[str, tuple[str, str]] | None = None, needed: str = "",
) -> CommandParser:  # fmt: skip
    """A parser with the fields of `Configuration`; options that are not given are None.

    Args:
        program, description, examples: of the command.
        without: fields that the command has no option for.
        renamed: the option and the help of fields that the command calls otherwise.
        needed: see `CommandParser`.
    """
    parser = CommandParser(description, program, examples, needed)
    fields = {option.name: option for option in dataclasses.fields(Configuration)}
    for heading, (daily, rare) in GROUPS.items():
        for name in (*daily, *rare):
            if name not in without:
                _add(
                    parser,
                    fields[name],
                    heading,
                    rare=name in rare and name not in (renamed or {}),
                    renamed=renamed or {},
                )
    parser.add_argument(
        "--config", action="append", type=str, metavar="FILE", group="output",
        help="a YAML file with these options, with _ for -, or a preset "
        f"({', '.join(presets())}); command-line options take precedence",
    )  # fmt: skip
    parser.add_argument(
        "--print-config", action="store_true", group="output", rare=True,
        help="print the options and their help as a YAML file for --config, and exit",
    )  # fmt: skip
    parser.add_argument(
        "--resume", type=str, default=None, metavar="RUN_DIR", group="output",
        help="continue a run; needs no other option",
    )  # fmt: skip
    return parser


def _add(
    parser: CommandParser, option: dataclasses.Field[Any], heading: str, *, rare: bool,
    renamed: Mapping[str, tuple[str, str]],
) -> None:  # fmt: skip
    kind = option_type(option)
    name, text = renamed.get(option.name, (flag(option.name), option.metadata["help"]))
    if option.name in BUILT_INS:
        text += f" (built in: {', '.join(built_ins(option.name))})"
    if option.default is not None and option.default is not False and option.default != "":
        text += f" (default: {option.default})"
    if option.name in RESUMABLE:
        text += " [also with --resume]"
    settings: dict[str, Any] = {
        "dest": option.name, "default": None, "help": text.replace("%", "%%"), "group": heading, "rare": rare,
    }  # fmt: skip
    if kind is bool:
        parser.add_argument(name, action="store_true", **settings)
    else:
        metavar = name.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(
            name, type=_NUMBERS.get(kind, kind), metavar=metavar, values=option.metadata["values"], **settings
        )


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
    return built_in_names(BUILT_INS[name]) if name in BUILT_INS else []


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
        raise SlimsearchError(f"--config '{path}': {reprlib.repr(values)} is not a mapping from options to values")
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
