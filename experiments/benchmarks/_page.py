"""Tables in a page of Markdown, each between two comments: ``<!-- table: name -->`` and ``<!-- end -->``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from slimsearch.errors import SlimsearchError

_TABLE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.S)


def filled(page: str, tables: Mapping[str, str]) -> str:
    """The page with these tables in their places.

    Places of other tables stay as they are.

    Raises:
        SlimsearchError: the page has no place for one of them, or two.
    """
    places = [match[2] for match in _TABLE.finditer(page)]
    for name in tables:
        if places.count(name) != 1:
            raise SlimsearchError(f"the page needs one place for the table '{name}'; places: {', '.join(places)}")

    def replaced(match: re.Match[str]) -> str:
        return f"{match[1]}{tables[match[2]].rstrip()}\n{match[4]}" if match[2] in tables else match[0]

    return _TABLE.sub(replaced, page)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """In Markdown; the first column is text, and so are the others unless they are numbers."""
    rule = ["---", *("---:" if numbers else "---" for _ in headings[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows)) + "\n"
