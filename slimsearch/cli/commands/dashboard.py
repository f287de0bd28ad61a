"""``slimsearch dashboard``: optuna-dashboard on a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slimsearch.cli.command_parser import CommandParser, whole_number

HELP = "open optuna-dashboard on a run, finished or going on"
_EXAMPLES = ("runs/mnist_cnn-20260101-120000", "runs/mnist_cnn-20260101-120000 --port 8081")


def parser(program: str) -> CommandParser:
    found = CommandParser(program, HELP, _EXAMPLES)
    found.add_argument("run_dir", type=str, help="the run directory")
    found.add_argument("--port", type=whole_number, default=8080, help="on the loopback address (default: 8080)")
    found.add_argument("--storage", type=str, default=None, help="again, where the study is on another machine")
    return found


def run(options: dict[str, Any]) -> None:
    from slimsearch.cli.dashboard import serve

    serve(Path(options["run_dir"]), options["port"], options["storage"])
