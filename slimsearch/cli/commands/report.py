"""``slimsearch report``: a run's reports made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slimsearch.cli.command_parser import CommandParser

HELP = "make a run's reports again from its record, and show the finalists"
_DESCRIPTION = (
    "Make top_models.json, pareto.csv and report.html again from the record of a run, and show the finalists."
)
_EXAMPLES = ("runs/mnist_cnn-20260101-120000",)


def parser(program: str) -> CommandParser:
    found = CommandParser(program, _DESCRIPTION, _EXAMPLES)
    found.add_argument("run_dir", type=str, help="the run directory")
    return found


def run(options: dict[str, Any]) -> None:
    from slimsearch.report.display import Console
    from slimsearch.report.report_again import report_again

    report_again(Path(options["run_dir"]), Console())
