"""``slimsearch ls``: lists the runs in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slimsearch.cli.command_parser import CommandParser

HELP = "list the runs in a folder with their spaces, progress and best results"
_EXAMPLES = ("", "path/to/runs --json")


def parser(program: str) -> CommandParser:
    found = CommandParser(HELP, program, _EXAMPLES)
    found.add_argument("folder", nargs="?", default="runs", help="folder of run directories")
    found.add_argument("--storage", help="URL of the studies that are in a database on another machine")
    found.add_argument("--json", action="store_true", help="print a JSON list of objects, one for each run")
    return found


def run(options: dict[str, Any]) -> None:
    from slimsearch.report.stored_run import ELSEWHERE, list_runs, runs_table
    from slimsearch.report.tables import console, plain

    found = list_runs(Path(options["folder"]), options["storage"])
    if options["json"]:
        print(json.dumps(found, indent=1))
        return
    shown = console()
    shown.print(runs_table(found))
    for entry in found:
        if "error" in entry:
            shown.print(plain(f"cannot be read: {entry['error']}"), soft_wrap=True)
    if any(entry.get("state") == ELSEWHERE for entry in found):
        shown.print("The trials of some runs are in a database on another machine: add --storage with its URL.")
