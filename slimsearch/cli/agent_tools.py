"""Tools for software agents: check a space, start runs, look at them, stop them, and export their models.

All paths, of options and of results, are in one folder. Runs are processes of their own, which outlive this one.
"""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimsearch.errors import SlimsearchError, did_you_mean
from slimsearch.options.configuration import Configuration

Json = dict[str, Any]

_RUNS = "runs"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MODULE = re.compile(r"(?<![\w./\\-])([^\W\d][\w.]*):([^\W\d]\w*)(?![\w=])")
"""``package.module:name`` of installed code, which agents may not run; not ``stage:option=value``."""
_NO_MODULES = {"dataset": ("hf",), "model": ("torchvision", "timm"), "init": ("torchvision",)}
"""Words before a colon that are no modules, by option."""
_REFUSED = ("run_dir", "storage", "study", "ray_address", "keep_dashboard", "download", "device_host")
_START_SECONDS, _MOST_WAITING, _CHECK_SECONDS = 120.0, 60.0, 600.0
_LOG_LINES = 5


class AgentTools:
    """Tools on runs in one folder.

    Args:
        folder: of space files, data, runs (in ``runs/``) and exported files.

    Raises:
        SlimsearchError: there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser().resolve()
        if not self._folder.is_dir():
            raise SlimsearchError(f"there is no folder '{folder}'")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def list_runs(self) -> Json:
        """List the runs in the folder, with their state, number of trials and best metrics."""
        from slimsearch.report.stored_run import list_runs

        runs = self._folder / _RUNS
        found = list_runs(runs) if any(runs.glob("*/config.yaml")) else []
        return {"runs": [{**entry, "run": Path(entry["run"]).name} for entry in found]}

    def check(self, options: Json) -> Json:
        """Examine a search space before a search: choices, which random networks run, and their costs.

        `options` are those of `slimsearch run`, with underscores, such as {"space": "my_net.py:define", "dataset":
        "images"}.
        """
        words = self._words(options)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "check.json"
            self._command(["check", *words, "--no-estimate", "--samples", "50", "--json", str(path)], _CHECK_SECONDS)
            found: Json = json.loads(path.read_text(encoding="utf-8"))
        return found

    def start(self, name: str, options: Json) -> Json:
        """Start a search in the background, or continue the run of that name if it exists.

        `options` are those of `slimsearch run --help-all`, with underscores for dashes, such as {"space": "tiny_cnn",
        "dataset": "mnist5k", "trials": 20, "max_size_kib": 64}. Files are in the folder of this server.
        """
        directory = self._directory(name)
        exists = (directory / "config.yaml").is_file()
        words = ["--resume", str(directory)] if exists else ["--run-dir", str(directory)]
        directory.parent.mkdir(exist_ok=True)
        before = self._journal_size(directory)
        with self._log(name).open("ab") as log:
            begins = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "slimsearch.cli.main", "run", *self._words(options), *words],
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < until and self._journal_size(directory) <= before:
            time.sleep(0.2)
        if process.poll() not in (None, 0):
            raise SlimsearchError(self._log_lines(name, begins)[-1])
        self._processes[name] = process
        return self.status(name)

    def status(self, name: str, wait_seconds: float = 0.0) -> Json:
        """State of a run: trials by state, the front so far, the recommended model, and the last lines of its log.

        With `wait_seconds` (at most 60), returns as soon as the run ends.
        """
        from slimsearch.report.stored_run import RUNNING, stored_run

        directory = self._directory(name)
        until = time.monotonic() + min(wait_seconds, _MOST_WAITING)
        while (run := stored_run(directory)).state == RUNNING and time.monotonic() < until:
            time.sleep(1.0)
        front = run.ranking.run_front(run.trials)
        states = [trial.state for trial in run.trials]
        best = next((model["trial"] for model in self._models(directory) if "recommended" in model), None)
        return {
            "run": name, "state": run.state, "trials": {state: states.count(state) for state in sorted({*states})},
            "front": [
                {
                    "trial": trial.number, "architecture": dict(trial.candidate.architecture),
                    "recipe": {stage: dict(of) for stage, of in trial.candidate.recipe.items()},
                    "metrics": {one.metric: trial.metrics[one.metric] for one in run.ranking.objectives},
                }
                for trial in front
            ],
            "recommended": best if run.state != RUNNING else None,
            "log": self._log_lines(name)[-_LOG_LINES:],
        }  # fmt: skip

    def stop(self, name: str) -> Json:
        """Stop a run that this server started, as Ctrl-C does; `start` with the same name continues it."""
        process = self._processes.get(name)
        if process is None or process.poll() is not None:
            raise SlimsearchError(f"run '{name}' is not running, or was not started by this server")
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_MOST_WAITING)
        except subprocess.TimeoutExpired:
            raise SlimsearchError(f"run '{name}' has not ended after {_MOST_WAITING:.0f} s") from None
        return self.status(name)

    def models(self, name: str) -> Json:
        """The finalists of a run: architecture, recipe, metrics with intervals, file, and why one is recommended."""
        return {"models": self._models(self._directory(name))}

    def export(self, name: str, trials: list[int] | None = None, format: str = "onnx", to: str = "exported") -> Json:
        """Export models of a run as files, by default the Pareto front.

        `format` is onnx, c, litert, executorch, openvino, torch-export or torchscript.
        """
        folder, directory = self._inside(to), self._directory(name)
        words = ["export", str(directory), "--format", format, "--to", str(folder)]
        said = self._command([*words, "--models", ",".join(map(str, trials))] if trials else words, _CHECK_SECONDS)
        files = [str(path.relative_to(self._folder)) for path in sorted(folder.glob(f"{directory.name}-*"))]
        return {"files": files, "said": said.splitlines()}

    def _directory(self, name: str) -> Path:
        if _NAME.fullmatch(name) is None:
            raise SlimsearchError(f"'{name}' is not a name of a run: letters, digits, '_', '-' and '.'")
        return self._folder / _RUNS / name

    def _log(self, name: str) -> Path:
        return self._folder / _RUNS / f"{name}.log"

    def _log_lines(self, name: str, begins: int = 0) -> list[str]:
        log = self._log(name)
        text = log.read_bytes()[begins:].decode(errors="replace") if log.is_file() else ""
        return [line for line in text.splitlines() if line.strip()] or ["(nothing was printed)"]

    def _journal_size(self, directory: Path) -> int:
        journal = directory / "study.journal"
        return journal.stat().st_size if journal.is_file() else -1

    def _models(self, directory: Path) -> list[Json]:
        path = directory / "top_models.json"
        found: list[Json] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        return found

    def _command(self, words: list[str], seconds: float) -> str:
        """The standard output of a command, in a process of its own: what libraries print there is no answer."""
        try:
            done = subprocess.run(
                [sys.executable, "-m", "slimsearch.cli.main", *words], cwd=self._folder, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise SlimsearchError(f"slimsearch {words[0]} has not ended after {seconds:.0f} s") from None
        if done.returncode != 0:
            raise SlimsearchError((done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2])
        return done.stdout

    def _words(self, options: Mapping[str, Any]) -> list[str]:
        """The options as words of a command line; their paths are checked."""
        words = []
        # Whole names alone: argparse would complete others, and files of --config name what is not checked here.
        known = {option.name for option in dataclasses.fields(Configuration)} - {*_REFUSED}
        for name, value in options.items():
            if name not in known:
                raise SlimsearchError(f"option '{name}' cannot be chosen here{did_you_mean(str(name), known)}")
            flag = "--" + name.replace("_", "-")
            if isinstance(value, bool):
                words += [flag] if value else []
                continue
            text = str(value)
            for module, attribute in _MODULE.findall(text):
                is_objective = name == "objectives" and attribute in ("min", "max")
                if not (module.endswith(".py") or module in _NO_MODULES.get(name, ()) or is_objective):
                    raise SlimsearchError(f"{name} '{text}': code is a built-in name or file.py:name in the folder")
            for piece in re.split(r"[,+=:]", text):
                if "/" in piece or "\\" in piece or piece.startswith(("~", "..")):
                    self._inside(piece)
            words.append(f"{flag}={text}")
        return words

    def _inside(self, path: str) -> Path:
        found = (self._folder / Path(path).expanduser()).resolve()
        if not found.is_relative_to(self._folder):
            raise SlimsearchError(f"'{path}' is not in the folder of this server")
        return found
