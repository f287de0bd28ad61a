"""What is needed to repeat a run: versions, processor, threads, precision, and the data's hash."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from evaluators import processor, runtime_version
from evaluators.datasets import Dataset
from experiments.configuration import Configuration
from experiments.problem import Problem
from slimsearch_errors import SlimsearchError
from slimsearch_reading import mismatch, read_json

_PACKAGES = (
    "slimsearch", "torch", "torchvision", "nni", "optuna", "numpy", "onnx", "onnxruntime", "torch-pruning",
    "moocore", "mlxtend", "openvino",
)  # fmt: skip


# Of what `describe` gives, that which a resumed run looks at.
_READ = {
    "packages": {str: str | None}, "device": str, "precision": str, "choices": {str: [str]},
    "initial_weights?": str,
    "dataset": {"name": str, "fingerprint?": str},
}  # fmt: skip


def describe(configuration: Configuration, problem: Problem) -> dict[str, Any]:
    """The environment of this process, the space that it searches and the data set that it read."""
    return {
        **machine(),
        "workers": configuration.worker_count,
        "threads_per_worker": 1,
        "device": problem.device,
        "precision": problem.precision,
        **({} if problem.initial is None else {"initial_weights": problem.initial}),
        "seed": configuration.seed,
        "runtime": f"{runtime_version(configuration.runtime)}, CPU" if problem.data is not None else None,
        "latency_batch": configuration.latency_batch,
        "latency_threads": configuration.latency_threads,
        "choices": {choice.label: [choice.text(value) for value in choice.values] for choice in problem.space.choices},
        "dataset": _described(problem.data) if problem.data is not None else {"name": configuration.evaluator},
    }


def machine() -> dict[str, Any]:
    """What there is whatever is run."""
    model, flags = processor()
    return {
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": model,
        "processor_flags": flags,
        "cores": os.cpu_count(),
    }


def _described(data: Dataset) -> dict[str, Any]:
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "train": len(data.train),
        "validation": len(data.validation),
        "test": len(data.test) if data.test is not None else 0,
        "input_shape": list(data.input_shape),
        **data.metadata(),
    }


def read(path: Path) -> dict[str, Any]:
    """The environment that the run in the directory `path` was begun in.

    Raises:
        SlimsearchError: it is missing or damaged.
    """
    file = path / "environment.json"
    found = read_json(file)
    wrong = mismatch(found, _READ, "it")
    if wrong is not None:
        raise SlimsearchError(f"'{file}' is damaged: {wrong}")
    return dict(found)


def changed_choices(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The labels whose values are not what they were, with both."""
    old, new = before["choices"], now["choices"]
    return "; ".join(
        f"'{label}' was {', '.join(old.get(label, ['absent']))}, is {', '.join(new.get(label, ['absent']))}"
        for label in sorted(old.keys() | new.keys())
        if old.get(label) != new.get(label)
    )


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of the environment is not as it was, a line each; how many workers there are does not count."""
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
