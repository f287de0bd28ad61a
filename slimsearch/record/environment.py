"""The environment of a run: versions of packages, processor, threads, precision, and the hash of the data set."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import processor
from slimsearch.reading import mismatch, read_json

_PACKAGES = (
    "slimsearch", "torch", "torchvision", "nni", "optuna", "numpy", "onnx", "onnxruntime", "torch-pruning",
    "moocore", "mlxtend", "openvino",
)  # fmt: skip
# The entries of environment.json that a resumed run reads.
_READ = {
    "packages": {str: str | None}, "device": str, "precision": str, "choices": {str: [str]},
    "initial_weights?": str,
    "dataset": {"name": str, "fingerprint?": str},
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
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
