"""Output of a benchmark: JSON, tables of a Markdown page, and results that are stored for the next process.

A table of a page stands between ``<!-- table: name -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from slimsearch.errors import SlimsearchError
from slimsearch.files import write_json, write_text

_WIDTH = 160
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.S)


def add_output(parser: argparse.ArgumentParser, *, page: bool = False) -> None:
    """Add ``--json`` and, for a benchmark whose tables stand in a page, ``--page``."""
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results as JSON")
    if page:
        parser.add_argument("--page", type=Path, metavar="PATH", help="renew the tables of a Markdown page")


def check_output(options: argparse.Namespace) -> None:
    """Fail before the work if an output cannot be written: make the folders of ``--json`` and ``--plot``.

    Raises:
        SlimsearchError: there is no file ``--page``.
    """
    page = getattr(options, "page", None)
    if page is not None and not page.is_file():
        raise SlimsearchError(f"--page '{page}': there is no such file")
    for path in (options.json, getattr(options, "plot", None)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)


def known_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows that ``--json`` has already."""
    if options.json is None or not options.json.is_file():
        return []
    found: list[dict[str, Any]] = json.loads(options.json.read_text(encoding="utf-8"))
    return found


def stored(path: Path, settings: Any, measure: Callable[[], Any]) -> Any:
    """The result of `measure` as JSON values: that of an earlier process with equal `settings`, or a new one.

    Raises:
        SlimsearchError: the stored result has other settings.
    """
    settings = json.loads(json.dumps(settings, default=asdict))
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"] != settings:
            raise SlimsearchError(f"'{path}' is of a run with other options: remove it, or name another --out")
        return found["measured"]
    measured = json.loads(json.dumps(measure(), default=asdict))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"settings": settings, "measured": measured})
    return measured


def write_output(options: argparse.Namespace, results: Any, tables: Mapping[str, str] | None = None) -> None:
    """Write the results to ``--json`` and the tables, by their names in the page, to ``--page``."""
    if options.json is not None:
        write_json(options.json, results)
    if tables is not None and options.page is not None:
        write_text(options.page, filled(options.page.read_text(encoding="utf-8"), tables))


def console() -> Console:
    """Standard output, with room for a wide table where it is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH)


def filled(page: str, tables: Mapping[str, str]) -> str:
    """Fill tables into the text of a page; other tables of the page stay.

    Raises:
        SlimsearchError: the page has no place for one of the tables, or several.
    """
    places = [match[2] for match in _TABLE.finditer(page)]
    for name in tables:
        if places.count(name) != 1:
            raise SlimsearchError(f"the page needs one place for the table '{name}'; places: {', '.join(places)}")

    def replaced(match: re.Match[str]) -> str:
        return f"{match[1]}{tables[match[2]].rstrip()}\n{match[4]}" if match[2] in tables else match[0]

    return _TABLE.sub(replaced, page)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """A table in Markdown; columns after the first are aligned as numbers or as text."""
    rule = ["---", *("---:" if numbers else "---" for _ in headings[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows)) + "\n"
