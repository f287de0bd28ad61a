"""Commands of a benchmark: started or resumed in processes of their own, and timed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective
from slimsearch.files import write_json

_MAIN = Path(__file__).resolve().parents[2]


class CommandRun:
    """A command in its own process; an existing run directory is resumed.

    Args:
        directory: the run directory; its output goes to a log file beside it.
        words: the command and its options, without ``--run-dir``.
        environment: additional variables of the process.
    """

    def __init__(self, directory: Path, *words: object, environment: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self._words = [str(word) for word in words]
        self._environment = {**os.environ, "PYTHONPATH": str(_MAIN), **(environment or {})}
        self._times = directory.with_suffix(".seconds.json")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> str:
        """The command line of a user."""
        return f"slimsearch {' '.join(self._words)}"

    def begin(self) -> CommandRun:
        """Start the process, unless the run has ended."""
        if self.done:
            return self
        words = [*self._words, "--run-dir", str(self.directory)]
        if (self.directory / "config.yaml").is_file():
            words = ["run", "--resume", str(self.directory)]
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        with self.directory.with_suffix(".log").open("ab") as log:
            self._began = time.perf_counter()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "slimsearch.cli.main", *words], env=self._environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip
        return self

    @property
    def done(self) -> bool:
        """Whether the run has ended without an error."""
        return bool(self._recorded().get("done"))

    def wait(self) -> CommandRun:
        """Wait for the end of the process.

        Raises:
            SlimsearchError: the command failed; the reason is in its log.
        """
        if self._process is None:
            return self
        code = None
        try:
            code = self._process.wait()
        finally:
            if code is None:
                self._process.terminate()
            seconds = time.perf_counter() - self._began
            before = self._recorded().get("seconds", [])
            write_json(self._times, {"seconds": [*before, seconds], "done": code == 0})
        self._process = None
        if code != 0:
            log = self.directory.with_suffix(".log")
            last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            raise SlimsearchError(f"'{self.directory}' ended with exit code {code}: {last} (log: {log})")
        return self

    @property
    def seconds(self) -> float:
        """Wall time from start to end, summed over the processes of a run that was interrupted."""
        return float(sum(self._recorded()["seconds"]))

    @property
    def models(self) -> list[dict[str, Any]]:
        """The models of top_models.json."""
        found: list[dict[str, Any]] = json.loads((self.directory / "top_models.json").read_text(encoding="utf-8"))
        return found

    def file(self, model: Mapping[str, Any]) -> Path:
        """The exported file of a model."""
        return self.directory / str(model["artifact"])

    def _recorded(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads(self._times.read_text(encoding="utf-8"))
            return found
        return {}


def run_together(*runs: CommandRun) -> None:
    """Run several commands at the same time."""
    for run in [run.begin() for run in runs]:
        run.wait()


def front(models: Sequence[Mapping[str, Any]], objectives: Sequence[Objective]) -> list[dict[str, float]]:
    """The objectives' metrics of the models on the front."""
    return [
        {objective.metric: float(model["metrics"][objective.metric]) for objective in objectives}
        for model in models
        if model["on_front"]
    ]
