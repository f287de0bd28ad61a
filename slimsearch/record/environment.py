"""The environment of a run: versions of packages, processor, threads, precision, and the hash of the data set."""

from __future__ import annotations

import itertools
import json
import os
import platform
import reprlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import processor
from slimsearch.reading import mismatch, read_json
from slimsearch.runtimes import DISTRIBUTIONS

_PACKAGES = (
    "slimsearch", "torch", "torchvision", "nni", "optuna", "numpy", "onnx", "torch-pruning", "moocore", "mlxtend",
    *itertools.chain.from_iterable(DISTRIBUTIONS.values()),
)  # fmt: skip
# The entries of environment.json that a resumed run reads.
_READ = {
    "packages": {str: str | None}, "device": str, "precision": str, "choices": {str: [str]},
    "initial_weights?": str, "code?": {str: str},
    "boards?": [{"name": str, "processor": str, "python": str, "runtime": str}],
    "dataset": {"name": str, "fingerprint?": str, "classes?": str},
}  # fmt: skip


def machine() -> dict[str, Any]:
    """Packages and hardware of this machine."""
    model, flags = processor()
    return {
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": model,
        "processor_flags": flags,
        "cores": os.cpu_count(),
    }


def read(path: Path) -> dict[str, Any]:
    """The environment in which the run in the directory `path` started.

    Raises:
        SlimsearchError: the file is missing or damaged.
    """
    file = path / "environment.json"
    found = read_json(file)
    wrong = mismatch(found, _READ, "it")
    if wrong is not None:
        raise SlimsearchError(f"'{file}' is damaged: {wrong}")
    return dict(found)


def changed_choices(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The choices whose values have changed, with old and new values."""
    old, new = before["choices"], now["choices"]
    return "; ".join(
        f"'{label}' was {', '.join(old.get(label, ['absent']))}, is {', '.join(new.get(label, ['absent']))}"
        for label in sorted(old.keys() | new.keys())
        if old.get(label) != new.get(label)
    )


def changed_meaning(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Changes of the user's code and of the names of classes, or None; older runs do not know their code."""
    changes = []
    if "code" in before and "code" in now:
        old, new = before["code"], now["code"]
        files = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        if files:
            changes.append(f"the code of {', '.join(files)}")
    old, new = (one["dataset"].get("classes") for one in (before, now))
    if old is not None and old != new:
        changes.append(f"the names of the classes: {_renamed(old, new)}")
    return " and ".join(changes) or None


def _renamed(before: str, now: str | None) -> str:
    try:
        old, new = json.loads(before), json.loads(now or "[]")
        return "; ".join(f"'{one}' is '{other}' now" for one, other in zip(old, new, strict=True) if one != other)
    except (ValueError, TypeError, RecursionError):  # environment.json may have been edited
        return f"{reprlib.repr(before)} was {reprlib.repr(now)}"


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Differences between two environments, one line each; the number of workers is ignored."""
    found = []
    for name in sorted(before["packages"].keys() | now["packages"].keys()):
        old, new = before["packages"].get(name), now["packages"].get(name)
        if old != new:
            found.append(f"{name} was {old}, is {new}")
    for name in ("python", "processor", "device", "precision"):
        if before.get(name) != now.get(name):
            found.append(f"{name} was {before.get(name)}, is {now.get(name)}")
    boards = {board["name"]: board for board in before.get("boards", [])}
    for board in now.get("boards", []):
        for name in ("processor", "python", "runtime"):
            old = boards.get(board["name"], board)[name]
            if old != board[name]:
                found.append(f"{name} of {board['name']} was {old}, is {board[name]}")
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
