"""The program that measures latency on a board: answers requests on standard input until that is closed.

`slimsearch.evaluators.latency.boards` sends the text of this file and of the modules that it imports over SSH. A board
needs Python 3.9 or newer, NumPy and the runtime; nothing is installed there and no file is written, except the best
times of the reference networks in the temporary folder.

A message is a line of JSON, and the bytes of its parts, whose sizes are in that line.
"""

from __future__ import annotations

import dataclasses
import importlib.abc
import importlib.util
import json
import os
import platform
import signal
import sys
from pathlib import Path
from typing import IO, Any

GREETING = b"slimsearch board\n"
"""Precedes the first answer: a login shell may print something before."""

# Seconds without a request after which the program ends, as when the network was unplugged.
_IDLE_SECONDS = 1800
_PACKAGES = ("numpy", "onnxruntime", "openvino")


class SentModules(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports modules from their texts.

    Args:
        texts: by name of the module.
    """

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        """The module or package `fullname`, if it was sent."""
        known = fullname in self._texts or self.is_package(fullname)
        return importlib.util.spec_from_loader(fullname, self) if known else None

    def is_package(self, fullname: str) -> bool:
        """Whether a module in the package `fullname` was sent."""
        return any(name.startswith(f"{fullname}.") for name in self._texts)

    def get_source(self, fullname: str) -> str:
        """The text of a module; packages are empty."""
        return self._texts.get(fullname, "")


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], list[bytes]] | None:
    """The next message and its parts; None at the end of `stream`."""
    line = stream.readline()
    if not line:
        return None
    message = json.loads(line)
    parts = [stream.read(size) for size in message["parts"]]
    if [len(part) for part in parts] != message["parts"]:
        return None
    return message, parts


def write_message(stream: IO[bytes], message: dict[str, Any], parts: list[bytes] | None = None) -> None:
    """Write a message and its parts."""
    parts = parts or []
    stream.write(json.dumps({**message, "parts": [len(part) for part in parts]}).encode() + b"\n")
    for part in parts:
        stream.write(part)
    stream.flush()


def main() -> None:
    """Answer requests; output of libraries goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answers.write(GREETING)
    received = read_message(sys.stdin.buffer)
    if received is None:
        return
    message, contents = received
    sys.meta_path.insert(0, SentModules(message["modules"]))
    write_message(answers, _facts())
    models = tuple((content, tuple(message["shapes"][i])) for i, content in enumerate(contents))
    while True:
        if hasattr(signal, "alarm"):
            signal.alarm(_IDLE_SECONDS)
        received = read_message(sys.stdin.buffer)
        if received is None:
            return
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        try:
            write_message(answers, _answer(*received, models))
        except Exception as error:  # a runtime has an exception for every reason
            write_message(answers, {"error": f"{type(error).__name__}: {error}"})


def _answer(message: dict[str, Any], contents: list[bytes], models: Any) -> dict[str, Any]:
    from slimsearch.errors import SlimsearchError
    from slimsearch.evaluators.latency.measurement import MeasurementSettings, measure_alone
    from slimsearch.evaluators.latency.meter import Meter
    from slimsearch.evaluators.latency.reference import Reference, pinned

    if "reference_threads" in message:
        threads = message["reference_threads"]
        with Meter().exclusive(), pinned(threads):
            reference = Reference(threads, models=models)
            calm = reference.calm(reference.time())
            reference.store()
        return {"reference_ms": [1000 * seconds for seconds in reference.best], "calm": calm}
    fields = message["settings"]
    settings = MeasurementSettings(**{**fields, "input_shape": tuple(fields["input_shape"])})
    files = [(Path(message["names"][i]), content) for i, content in enumerate(contents)]
    try:
        measured = measure_alone(files, settings, Meter(), models)
    except SlimsearchError as error:
        return {"error": str(error)}
    return {"latencies": [dataclasses.asdict(one) for one in measured.latencies], "alone": measured.alone}


def _facts() -> dict[str, Any]:
    """Hardware and packages, without the names of machine and user."""
    found = {}
    for package in _PACKAGES:
        specification = importlib.util.find_spec(package)
        if specification is not None:
            found[package] = _version(package)
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": found,
    }


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:  # copied there without its metadata
        return "of unknown version"


def _processor() -> str:
    """The model of the board, such as Raspberry Pi 4 Model B Rev 1.4, or of its processor."""
    for path, start in (("/proc/device-tree/model", ""), ("/proc/cpuinfo", "model name")):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        line = next((line for line in text.splitlines() if line.startswith(start)), "").rstrip("\0")
        if line:
            return line.rpartition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
