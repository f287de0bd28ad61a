"""Reading and checking YAML and JSON that may be damaged or untrusted."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any

import yaml

from slimsearch.errors import SlimsearchError, reason

# Deeply nested brackets raise a RecursionError in the parsers; dates that do not exist raise a ValueError in PyYAML.
_YAML = (yaml.YAMLError, ValueError, RecursionError)
_JSON = (ValueError, RecursionError)


class _WithExponents(yaml.SafeLoader):
    """Reads ``1e-3`` as a number, as YAML 1.2 and JSON do; PyYAML reads it as text."""


_WithExponents.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: Path, *, exponents: bool = True) -> Any:
    """Read a YAML file as plain values.

    Args:
        path: of the file.
        exponents: read ``1e-3`` as a number; False for files that PyYAML writes, where it is text.

    Raises:
        FileNotFoundError: the file is missing.
        SlimsearchError: the file cannot be read or is not YAML.
    """
    try:
        return _parsed(path.read_text(encoding="utf-8"), exponents)
    except FileNotFoundError:
        raise
    except (OSError, *_YAML) as error:
        raise SlimsearchError(f"cannot read '{path}': {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return reason(error)


def yaml_value(text: str) -> Any:
    """Parse a plain value such as ``0.5``, ``1e-3``, ``true`` or ``[1, 2]``.

    Raises:
        SlimsearchError: the text is not YAML.
    """
    try:
        return _parsed(text)
    except _YAML as error:
        raise SlimsearchError(f"cannot read {reprlib.repr(text)}: {_reason(error)}") from None


def _parsed(text: str, exponents: bool = True) -> Any:
    return yaml.load(text, Loader=_WithExponents if exponents else yaml.SafeLoader)


def read_json(path: Path) -> Any:
    """Read a JSON file as plain values.

    Raises:
        SlimsearchError: the file is missing, cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, *_JSON) as error:
        raise SlimsearchError(f"cannot read '{path}': {_reason(error)}") from error


def mismatch(value: Any, wanted: Any, where: str = "it") -> str | None:
    """Compare plain values with a schema; returns a message about the first difference, or None.

    Args:
        value: from JSON or YAML.
        wanted: a type or several (``str | None``), where an int is also a float and a bool is neither; ``[wanted]``, a
            list; ``{str: wanted}``, a mapping with any keys; ``{"name": wanted, "other?": wanted}``, a mapping with the
            key "name", optionally "other", and any further keys.
        where: the name of `value` in the message.
    """
    if isinstance(wanted, list):
        if not isinstance(value, list):
            return f"{where} is {reprlib.repr(value)}, not a list"
        found = (mismatch(one, wanted[0], f"{where}[{position}]") for position, one in enumerate(value))
        return next(filter(None, found), None)
    if isinstance(wanted, Mapping):
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            return f"{where} is {reprlib.repr(value)}, not a mapping with text keys"
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


_NAMES = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "NoneType": "null"}


def _name(wanted: Any) -> str:
    kinds = wanted.__args__ if isinstance(wanted, UnionType) else (wanted,)
    return " or ".join(_NAMES.get(kind.__name__, kind.__name__) for kind in kinds)
