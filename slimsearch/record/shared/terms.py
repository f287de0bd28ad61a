"""What the drivers of a shared study must agree on: what is searched, and how."""

from __future__ import annotations

import dataclasses
from pathlib import PurePath
from typing import Any

from slimsearch.options.configuration import RESUMABLE, Configuration, flag
from slimsearch.record.environment import changed_choices

# Where things are differs from machine to machine, and of the data set the hash counts.
_OF_EACH = (*RESUMABLE, "run_dir", "study", "data_root", "download", "dataset")


def terms(configuration: Configuration, environment: dict[str, Any]) -> dict[str, Any]:
    """The options by which a study is what it is, the space and the data set; files by their names without folders."""
    options = {
        option.name: getattr(configuration, option.name)
        for option in dataclasses.fields(Configuration)
        if option.name not in _OF_EACH
    }
    return {
        "options": {
            name: _without_folders(value) if isinstance(value, str) else value for name, value in options.items()
        }
        | {name: environment[name] for name in ("device", "precision")},
        "dataset": environment["dataset"].get("fingerprint", ""),
        "choices": environment["choices"],
        "environment": environment,
    }


def disagreement(study: dict[str, Any], here: dict[str, Any]) -> str | None:
    """The first thing in which a driver's terms are not those of the study, in words."""
    for name in sorted(study["options"].keys() | here["options"].keys()):
        theirs, ours = study["options"].get(name), here["options"].get(name)
        if theirs != ours:
            return f"{flag(name)} is {theirs} in the study and {ours} here"
    if study["choices"] != here["choices"]:
        return f"its space differs: {changed_choices(study, here)}"
    if study["dataset"] != here["dataset"]:
        return "the data set here is another one: its hash differs"
    return None


def _without_folders(text: str) -> str:
    """``name=path/to/file.py:function,...`` and the like, with files but without their folders."""
    parts = (part.rpartition("=") for part in text.split(","))
    return ",".join(f"{name}{equals}{PurePath(value).name}" for name, equals, value in parts)
