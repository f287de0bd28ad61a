"""HTML tables, as which notebooks show objects of the public API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from slimsearch.errors import escaped

_LONGEST = 200


def facts_table(facts: Iterable[tuple[str, str]], pictures: Iterable[tuple[str, str]] = ()) -> str:
    """A table of one object.

    Args:
        facts: name and value of each row; rows without a value are left out.
        pictures: URL and name of each picture below the table.
    """
    rows = "".join(f"<tr><th>{_text(name)}</th>{_cell(value)}</tr>" for name, value in facts if value)
    images = "".join(
        f'<img src="{escape(url)}" alt="{_text(name)}" title="{_text(name)}" style="width:48px;height:48px;margin:2px;'
        'object-fit:contain;image-rendering:pixelated">'
        for url, name in pictures
    )
    return f"<table>{rows}</table>{f'<div>{images}</div>' if images else ''}"


def rows_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of several objects, one row each, below a title of one line."""
    heads = "".join(f"<th>{_text(heading)}</th>" for heading in headings)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<p>{_text(title)}</p><table><tr>{heads}</tr>{lines}</table>"


def listed(names: Sequence[str], most: int = 10) -> str:
    """``3: cat, dog, bird``, and of many names the first ones."""
    more = [f"{len(names) - most:,} more"] if len(names) > most else []
    return f"{len(names):,}: {', '.join([*names[:most], *more])}" if names else ""


def _cell(value: str) -> str:
    return f'<td style="text-align:left">{_text(value)}</td>'


def _text(text: str) -> str:
    return escape(escaped(text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."))
