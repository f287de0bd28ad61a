"""What of the documentation is made when it is built: the reference, pages of the notebooks, tables kept elsewhere.

MkDocs calls the functions whose names begin with ``on_`` (https://www.mkdocs.org/user-guide/plugins/#events).
"""

from __future__ import annotations

import argparse
import html
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # what is described is this checkout

from slimsearch.names import built_in_names, load_class  # noqa: E402

# Each page of the reference: its heading, the package, and the packages of its built-ins with theirs.
REFERENCE = {
    "slimsearch": ("From Python", {}),
    "slimsearch.search_spaces": ("Spaces", {"slimsearch.search_spaces": "Shipped spaces"}),
    "slimsearch.compression": (
        "Compression",
        {
            "slimsearch.compression": "Stages",
            "slimsearch.compression.pruning.importances": "Importances",
            "slimsearch.compression.pruning.schedules": "Schedules of pruning",
        },
    ),
    "slimsearch.evaluators": (
        "Evaluators",
        {"slimsearch.evaluators.datasets": "Data sets"},
    ),
    "slimsearch.strategies": (
        "Strategies",
        {
            "slimsearch.strategies": "Engines",
            "slimsearch.strategies.samplers": "Samplers",
            "slimsearch.strategies.schedulers": "Schedulers",
        },
    ),
    "slimsearch.testing": ("Contract tests", {}),
}
_PICTURE = re.compile(r"(!\[[^\]]*\]\()\.\./([^)\s]+\.(?:png|svg))(\))")
_SHOWN = re.compile(r"^<!-- shown: (.+) of (\S+) -->$", re.M)
_TO_A_PAGE = re.compile(r"\]\(docs/(\S+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that nobody wrote."""
    docs = Path(config["docs_dir"])
    pages = {
        "reference/commands.md": commands(),
        **{f"reference/{name.rpartition('.')[2]}.md": reference(name) for name in REFERENCE},
    }
    for notebook in sorted(docs.glob("notebooks/*.ipynb")):
        pages[f"notebooks/{notebook.stem}.md"] = as_page(notebook)
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for picture in sorted({found[2] for page in docs.glob("*.md") for found in _PICTURE.finditer(page.read_text())}):
        if not (ROOT / picture).is_file():
            raise PluginError(f"there is no picture {picture}")
        files.append(File.generated(config, f"images/{Path(picture).name}", abs_src_path=str(ROOT / picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Pictures from outside docs/ are among its own, and what is said in another file is said here, too."""
    moved = _PICTURE.sub(lambda found: f"{found[1]}images/{Path(found[2]).name}{found[3]}", markdown)
    return _SHOWN.sub(lambda found: shown(found[1], found[2]), moved)


def shown(name: str, path: str) -> str:
    """What another file has by a name.

    That is the table between ``<!-- table: name -->`` and ``<!-- end -->``, the section with that heading, the Python
    code that begins with it in a comment, or the output that begins with it.
    """
    text = (ROOT / path).read_text(encoding="utf-8")
    known = re.escape(name)
    for form in (
        rf"<!-- table: {known} -->\n(.*?)<!-- end -->",
        rf"^#+ {known}\n(.*?)(?=^##? |^### |\Z)",
        rf"(^```python\n# {known}\n.*?^```$)",
        rf"(^```text\n{known}\n.*?^```$)",
    ):
        if (found := re.search(form, text, re.S | re.M)) is not None:
            return _TO_A_PAGE.sub(r"](\1)", found[1])
    raise PluginError(f"{path} has nothing called '{name}'")


def reference(name: str) -> str:
    """The public names of a package, then its built-ins, each from its docstrings."""
    heading, kinds = REFERENCE[name]
    lines = [f"# {heading}: `{name}`", "", f"::: {name}", "    options:", "      show_root_heading: false", ""]
    if name == "slimsearch":
        lines += ["::: slimsearch.errors.SlimsearchError", ""]
    for package, title in kinds.items():
        lines += [f"## {title}", ""]
        if package != name:
            lines += [f"::: {package}", "    options:", "      show_root_heading: false", ""]
        for built_in in built_in_names(package):
            typed = built_in.replace("_", "-") if package == "slimsearch.strategies" else built_in
            lines += [
                f"### `{typed}`", "", f"::: {_published(package, built_in)}",
                "    options:", "      heading_level: 4", "",
            ]  # fmt: skip
    return "\n".join(lines)


def _published(package: str, name: str) -> str:
    """The full name of the class of a built-in."""
    found = load_class("built-in", name, package)
    return f"{found.__module__}.{found.__qualname__}"


def commands() -> str:
    """Every command with its options and examples, from its parser."""
    from slimsearch.cli.main import commands as known

    lines = [
        "# Commands", "",
        "`slimsearch COMMAND`, or `python experiments/run.py` for `slimsearch run`. Options of a run can stand in a "
        "YAML file for `--config`, by the same names with `_` for `-`.", "",
    ]  # fmt: skip
    modules = known()
    shared = {action.dest for action in modules["run"].parser("run")._actions}
    for name in sorted(modules, key=lambda name: name != "run"):
        lines += [f"## {name}", "", *_command(name, modules[name], set() if name == "run" else shared)]
    return "\n".join(lines)


def _command(name: str, module: ModuleType, shared: set[str]) -> Iterator[str]:
    """Of a command; it has options of a run, which are listed once, where it has those that are `shared`."""
    parser = module.parser(f"slimsearch {name}")
    yield from (_escaped(parser.description), "")
    takes_a_run = bool(shared) and "space" in {action.dest for action in parser._actions}
    for action in parser._actions:
        if action.dest in ("help", argparse.SUPPRESS) or (takes_a_run and action.dest in shared):
            continue
        words = ", ".join(action.option_strings) or action.metavar or action.dest.upper()
        value = f" {action.metavar or action.dest.upper()}" if action.option_strings and action.nargs != 0 else ""
        yield f"- `{words}{value}`: {_escaped((action.help or '') % {'default': action.default, 'prog': parser.prog})}"
    if takes_a_run:
        yield "- and the [options of a run](#run)"
    yield from ("", "```sh", *(line.strip() for line in parser.epilog.splitlines()[1:]), "```", "")


def as_page(notebook: Path) -> str:
    """The cells of a notebook, as they are committed: without outputs."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    parts.insert(1, f"This page is a notebook: [{notebook.name}]({notebook.name}).")
    return "\n\n".join(parts) + "\n"


def _escaped(text: Any) -> str:
    """As Markdown that shows `text` itself."""
    return re.sub(r"([\\`*_{}\[\]#|])", r"\\\1", html.escape(" ".join(str(text).split()), quote=False))
