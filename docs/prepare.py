"""Write the sources of the documentation to build/docs: the pages of docs/, the reference, pages of the notebooks.

    python docs/prepare.py && zensical build --strict

Another folder than build/docs may be named.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

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
        {"slimsearch.evaluators.tasks": "Learning tasks", "slimsearch.evaluators.datasets": "Data sets"},
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


def write(target: Path) -> None:
    """Write all sources to a folder, in place of what is there."""
    docs = ROOT / "docs"
    if target.exists() and not (target / "reference" / "commands.md").is_file():
        raise SystemExit(f"'{target}' exists and is not the documentation")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(docs, target, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    pages = {path.relative_to(docs).as_posix(): path.read_text(encoding="utf-8") for path in docs.glob("*.md")}
    for picture in sorted({found[2] for page in pages.values() for found in _PICTURE.finditer(page)}):
        shutil.copy(ROOT / picture, target / "images")
    pages["reference/commands.md"] = commands()
    pages |= {f"reference/{name.rpartition('.')[2]}.md": reference(name) for name in REFERENCE}
    pages |= {f"notebooks/{path.stem}.md": as_page(path) for path in docs.glob("notebooks/*.ipynb")}
    for path, text in pages.items():
        (target / path).parent.mkdir(exist_ok=True)
        (target / path).write_text(complete(text), encoding="utf-8")


def complete(markdown: str) -> str:
    """A page with the pictures from outside docs/ and the parts of other files that it shows."""
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
    raise SystemExit(f"{path} has nothing called '{name}'")


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
            lines += [
                f"### `{built_in}`", "", f"::: {_published(package, built_in)}",
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


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "docs")
