"""The rows of the README's headline table, each with what it is compared with in the same run.

    python experiments/benchmarks/headline.py first-seconds --json headline.json
    python experiments/benchmarks/headline.py hello-nas --mnist data --json headline.json

A row that was interrupted is gone on with: its runs are kept below --out. The file of --json keeps the rows that
other calls have written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # in place of this folder

from experiments.benchmarks._co_search import co_search
from experiments.benchmarks._first_seconds import first_seconds
from experiments.benchmarks._headline_table import front_table, headline_table
from experiments.benchmarks._hello_nas import hello_nas
from experiments.benchmarks._page import filled
from experiments.benchmarks._small_cifar10 import small_cifar10
from experiments.benchmarks._tiny_mnist import tiny_mnist
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import processor
from slimsearch.files import write_json, write_text

ROWS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "first-seconds": lambda options: first_seconds(options.repeats),
    "hello-nas": lambda options: hello_nas(_mnist(options), options.out / "hello-nas", options.seeds or 3),
    "mnist-2421": lambda options: tiny_mnist(_mnist(options), options.out / "mnist", 2421, *_effort(options)),
    "mnist-1000": lambda options: tiny_mnist(_mnist(options), options.out / "mnist", 1000, *_effort(options)),
    "cifar10": lambda options: small_cifar10(
        _cifar10(options), options.out / "cifar10", options.trials, options.epochs, options.long
    ),
    "co-search": lambda options: co_search(
        options.cifar10, options.out / "co-search", options.seeds or 5, options.budget, options.epochs
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a row; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    made = CommandParser(__doc__.partition("\n")[0])
    made.add_argument("row", choices=list(ROWS), help="which one")
    made.add_argument("--json", type=Path, help="where the row is written, beside those that are there")
    made.add_argument("--page", type=Path, help="a page of Markdown whose tables are written anew")
    made.add_argument("--out", type=Path, default=Path("runs") / "headline", help="where runs are kept")
    made.add_argument("--mnist", type=Path, help="folder that torchvision.datasets.MNIST reads")
    made.add_argument("--cifar10", type=Path, help="image folder of CIFAR-10")
    made.add_argument("--seeds", type=int, help="how many; by default as many as the row quotes")
    made.add_argument("--repeats", type=int, default=5, help="of first-seconds")
    made.add_argument("--trials", type=int, default=32, help="of a search")
    made.add_argument("--epochs", type=int, default=4, help="of training in a search")
    made.add_argument("--long", type=int, default=40, help="epochs of a training for long")
    made.add_argument("--workers", type=int, default=2, help="of the searches of the mnist rows")
    made.add_argument("--budget", type=float, default=120.0, help="seconds of each search of co-search")
    return made


def _run(options: argparse.Namespace) -> None:
    options.out = options.out.resolve()
    row = _without_paths(ROWS[options.row](options), options)
    print(json.dumps(row, indent=1))
    before = {}
    if options.json is not None and options.json.is_file():
        before = json.loads(options.json.read_text(encoding="utf-8"))
    name, flags = processor()
    rows = {**before.get("rows", {}), options.row: row}
    if options.json is not None:
        found = {"processor": name, "processor_flags": flags, "rows": rows}
        write_json(options.json, found)
    if options.page is not None:
        page = options.page.read_text(encoding="utf-8")
        write_text(options.page, filled(page, _tables(rows, page)))


def _tables(rows: Mapping[str, Mapping[str, Any]], page: str) -> dict[str, str]:
    """Those that the page has a place for; all where it has none, which `filled` refuses."""
    made = {"headline": headline_table(rows)}
    made |= {name.replace("-", "_"): front_table(row) for name, row in rows.items() if "lenet" in row}
    return {name: text for name, text in made.items() if f"<!-- table: {name} -->" in page} or made


def _without_paths(row: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Commands as another machine would have them."""
    text = json.dumps(row)
    for path, name in ((options.out, "runs/headline"), (options.mnist, "data"), (options.cifar10, "cifar10")):
        if path is not None:
            text = text.replace(json.dumps(str(path.resolve()))[1:-1], name)
    found: dict[str, Any] = json.loads(text)
    return found


def _effort(options: argparse.Namespace) -> tuple[int, int, int, int, int]:
    return options.trials, options.epochs, options.long, options.seeds or 3, options.workers


def _mnist(options: argparse.Namespace) -> Path:
    if options.mnist is None:
        raise SlimsearchError(f"{options.row} needs --mnist, the folder that torchvision.datasets.MNIST reads")
    found: Path = options.mnist.resolve()
    return found


def _cifar10(options: argparse.Namespace) -> Path:
    if options.cifar10 is None:
        raise SlimsearchError(f"{options.row} needs --cifar10, an image folder of CIFAR-10")
    found: Path = options.cifar10.resolve()
    return found


if __name__ == "__main__":
    sys.exit(main())
