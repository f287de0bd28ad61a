"""What anybody may have written, read as data: YAML and JSON, and the first thing in it that is not as it should be."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any

import yaml

from slimsearch.errors import SlimsearchError, first_line

# A parser of a few hundred levels of brackets ends with a RecursionError; PyYAML raises a ValueError of Python's for a
# date that does not exist.
_YAML = (yaml.YAMLError, ValueError, RecursionError)
_JSON = (ValueError, RecursionError)


def read_yaml(path: Path) -> Any:
    """The plain values in a YAML file.

    Raises:
        FileNotFoundError: there is none.
        SlimsearchError: it cannot be read, or is no YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, *_YAML) as error:
        raise SlimsearchError(f"cannot read '{path}': {first_line(error)}") from error


def yaml_value(text: str) -> Any:
    """The plain value that a word such as ``0.5``, ``true`` or ``[1, 2]`` stands for.

    Raises:
        SlimsearchError: it is no YAML.
    """
    try:
        return yaml.safe_load(text)
    except _YAML as error:
        raise SlimsearchError(f"cannot read {reprlib.repr(text)}: {first_line(error)}") from None


def read_json(path: Path) -> Any:
    """The plain values in a JSON file.

    Raises:
        SlimsearchError: it is missing, cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, *_JSON) as error:
        raise SlimsearchError(f"cannot read '{path}': {first_line(error)}") from error


def mismatch(value: Any, wanted: Any, where: str = "it") -> str | None:
    """The first thing in which plain values are not as they should be, in words; None: they are.

    Args:
        value: from JSON or YAML.
        wanted: a type, or several (``str | None``), where an int is a float too and a bool is neither; ``[wanted]``, a
            list; ``{str: wanted}``, a mapping with any names; ``{"name": wanted, "other?": wanted}``, a mapping that
            has the first name, perhaps the second one, and perhaps others.
        where: what `value` is called.
    """
    if isinstance(wanted, list):
        if not isinstance(value, list):
            return f"{where} is {reprlib.repr(value)}, no list"
        found = (mismatch(one, wanted[0], f"{where}[{position}]") for position, one in enumerate(value))
        return next(filter(None, found), None)
    if isinstance(wanted, Mapping):
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            return f"{where} is {reprlib.repr(value)}, no mapping with names"
        if str in wanted:
            found = (mismatch(one, wanted[str], f"{where}.{name}") for name, one in value.items())
            return next(filter(None, found), None)
        for name, inside in wanted.items():
            own = name.removesuffix("?")
            if own not in value:
                if own == name:
                    return f"{where} has no '{own}'"
            elif (wrong := mismatch(value[own], inside, f"{where}.{own}")) is not None:
                return wrong
        return None
    return None if _is(value, wanted) else f"{where} is {reprlib.repr(value)}, not {_name(wanted)}"


def _is(value: Any, wanted: Any) -> bool:
    if wanted is object:
        return True
    if isinstance(wanted, UnionType):
        return any(_is(value, one) for one in wanted.__args__)
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, int | float) if wanted is float else isinstance(value, wanted)


_NAMES = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "NoneType": "nothing"}


def _name(wanted: Any) -> str:
    kinds = wanted.__args__ if isinstance(wanted, UnionType) else (wanted,)
    return " or ".join(_NAMES.get(kind.__name__, kind.__name__) for kind in kinds)
