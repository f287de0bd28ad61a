"""``slimsearch report``: writes the reports of a run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slimsearch.cli.command_parser import CommandParser

HELP = "write the reports of a run again from its record, and show the finalists"
_DESCRIPTION = (
    "Write top_models.json, pareto.csv and report.html of a run again from its record, and show the finalists."
)
_EXAMPLES = ("runs/mnist_cnn-20260101-120000", "runs/mnist_cnn-20260101-120000 --prefer small")


def parser(program: str) -> CommandParser:
    found = CommandParser(_DESCRIPTION, program, _EXAMPLES)
    found.add_argument("run_dir", help="the run directory")
    found.add_argument(
        "--prefer",
        metavar="PREFER",
        help="model to recommend: balanced, accuracy, small or fast (default: as in the run)",
    )
    found.add_argument("--storage", help="URL of the study, if it is in a database on another machine")
    return found


def run(options: dict[str, Any]) -> None:
    from slimsearch.report.display import Console
    from slimsearch.report.report_files import rewrite_reports

    rewrite_reports(Path(options["run_dir"]), Console(), prefer=options["prefer"], storage=options["storage"])
