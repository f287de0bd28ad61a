"""``slimsearch compare``: compares runs on the same data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slimsearch.cli.command_parser import CommandParser
from slimsearch.files import write_json
from slimsearch.progress import progress

HELP = "compare runs on the same data: options, hypervolumes, and their joint front"
_EXAMPLES = (
    "runs/mnist_cnn-20260101-120000 runs/lenet-20260101-130000",
    "runs/mnist_cnn-20260101-120000 runs/lenet-20260101-130000 --measure --json comparison.json",
)


def parser(program: str) -> CommandParser:
    found = CommandParser(HELP, program, _EXAMPLES)
    found.add_argument("runs", nargs="+", help="run directories")
    found.add_argument("--storage", help="URL of the studies, if they are in a database on another machine")
    found.add_argument("--measure", action="store_true", help="measure the latencies of all finalists again, in turns")
    found.add_argument(
        "--device-host", metavar="HOST", values=True,
        help="of --measure: board that measures over SSH: user@board, or none",
    )  # fmt: skip
    found.add_argument("--json", metavar="PATH", help="write the comparison as JSON")
    return found


def run(options: dict[str, Any]) -> None:
    from slimsearch.report.run_comparison import compare, tables
    from slimsearch.report.stored_run import stored_run
    from slimsearch.report.tables import console, plain

    with progress("comparing the runs"):
        runs = [stored_run(Path(path), storage=options["storage"]) for path in options["runs"]]
        found = compare(runs, measure=options["measure"], device_host=options["device_host"])
    shown = console()
    for table in tables(found):
        shown.print(table)
    for line in found.warnings:
        shown.print(plain(line))
    if options["json"] is not None:
        write_json(Path(options["json"]), found.to_json())
