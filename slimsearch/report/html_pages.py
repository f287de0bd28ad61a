"""The pages of a run and of several runs as HTML: report.html, and the pages that `slimsearch watch` serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from slimsearch.report.page_data import page_text

# The scripts of each page, in this order, in one scope that is entered again whenever the page is drawn again.
_SHARED = ("data.js", "scales.js", "shared.js", "theme.js")
_RUN = (
    *_SHARED, "header.js", "front.js", "detail.js", "finalists.js", "history.js", "parallel.js", "importances.js",
    "timeline.js", "trials.js", "start.js",
)  # fmt: skip
_RUNS = (*_SHARED, "runs.js", "front.js", "detail.js", "progress.js", "trials.js", "start_runs.js")


def report_page(name: str, data: dict[str, Any]) -> str:
    """The content of report.html of the run called `name`; `data` is the result of `page_data`."""
    return _page("report.html.j2", name, _RUN, page_text(data))


def live_page(name: str, *, several: bool) -> str:
    """The same page without data, which it asks for again and again, as ``data.json`` beside it.

    Args:
        name: of the run.
        several: whether there is a page of several runs, to which it links.
    """
    return _page("report.html.j2", name, _RUN, None, several=several)


def live_runs_page(names: Sequence[str]) -> str:
    """A page of several runs, which asks for its data likewise."""
    return _page("runs.html.j2", ", ".join(names), _RUNS, None, names=names)


def _page(template: str, title: str, scripts: Sequence[str], data: str | None, **more: Any) -> str:
    from jinja2 import Environment, PackageLoader

    folder = files("slimsearch.report") / "page"

    def text(*names: str) -> str:
        return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)

    found = Environment(loader=PackageLoader("slimsearch.report", "page"), autoescape=True).get_template(template)
    values: Mapping[str, Any] = {
        "title": title, "data": data, "style": text("style.css"), "script": text(*scripts),
        "around": text("redraw.js", "saved.js" if data is not None else "live.js"), **more,
    }  # fmt: skip
    return found.render(values)
