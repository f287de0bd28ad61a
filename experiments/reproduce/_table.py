"""Options and rows of a reproduction: printed as a table, written as JSON."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.network_folder import NetworkFolder, StoredNetwork
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.evaluators import size_kib
from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.files import write_json

_COLUMNS = ("source", "what", "seed", "params", "test_accuracy", "latency_ms", "size_kib", "seconds")


def flow_parser(description: str, out: str, seeds: int) -> argparse.ArgumentParser:
    """Parser with the options of all flows."""
    parser = CommandParser(description)
    parser.add_argument("--seeds", type=int, default=seeds, help="number of seeds")
    parser.add_argument("--json", type=Path, help="write the rows as JSON")
    parser.add_argument("--out", type=Path, default=Path("runs") / "reproduce" / out, help="folder of the networks")
    parser.add_argument("--with-nni", action="store_true", help="run NNI's flow instead of showing its stored results")
    return parser


def mnist_parser(description: str, out: str) -> argparse.ArgumentParser:
    """Parser of the flows on MNIST."""
    parser = flow_parser(description.partition("\n")[0], out, seeds=3)
    parser.add_argument("--mnist", type=Path, required=True, help="folder that torchvision.datasets.MNIST reads")
    return parser


def mnist(folder: Path) -> Dataset:
    """MNIST with its test split."""
    return load_dataset("mnist", root=folder)


def run(main: Callable[[], None]) -> None:
    """Run a script and exit with its exit code."""
    sys.exit(exit_code(main))


def row(
    flow: str, what: str, seed: int, network: StoredNetwork, networks: NetworkFolder, latency: float, seconds: float
) -> dict[str, Any]:
    """The row of a network's file."""
    return {
        "flow": flow,
        "source": "slimsearch",
        "what": what,
        "seed": seed,
        "params": network.metrics["params"],
        "test_accuracy": networks.test_accuracy(network.file),
        "val_accuracy": network.metrics["val_accuracy"],
        "latency_ms": latency,
        "size_kib": size_kib(network.file),
        "seconds": seconds,
    }


def means(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line with mean and range of each entry with several seeds."""
    grouped: dict[tuple[str, str], list[float]] = {}
    for one in rows:
        if "seed" in one:
            grouped.setdefault((one["source"], one["what"]), []).append(100 * one["test_accuracy"])
    return [
        f"{source}, {what}: {statistics.mean(values):.2f}% test, from {min(values):.2f} to {max(values):.2f}, "
        f"{len(values)} seeds"
        for (source, what), values in grouped.items()
        if len(values) > 1
    ]


def kept_nni_rows(flow: str) -> list[dict[str, Any]]:
    """Stored results of NNI's flow, with its command; without times, which are those of another machine."""
    kept = Path(__file__).parent / "results" / f"{flow}.json"
    if not kept.is_file():
        return []
    found = json.loads(kept.read_text(encoding="utf-8"))
    return [
        {
            **{name: value for name, value in one.items() if name not in ("latency_ms", "seconds")},
            "source": str(one["source"]).replace("run here", "kept"),
            "command": found["command"],
        }
        for one in found["rows"]
    ]


def nni_rows(folder: Path, seed: int, make: Any) -> list[dict[str, Any]]:
    """Results of NNI's flow: `make` is called once, and its rows are stored."""
    kept = folder / f"nni-{seed}.json"
    if not kept.is_file():
        rows = make()
        folder.mkdir(parents=True, exist_ok=True)
        write_json(kept, rows)
    found: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def show(rows: Sequence[Mapping[str, Any]], path: Path | None, notes: Sequence[str] = ()) -> None:
    """Print the rows and write them as JSON."""
    table = Table(title=str(rows[0]["flow"]))
    for column in _COLUMNS:
        table.add_column(
            column.replace("test_accuracy", "test %"), justify="left" if column in ("source", "what") else "right"
        )
    for row in rows:
        table.add_row(*(_text(column, row.get(column)) for column in _COLUMNS))
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, list(rows))


def _text(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column == "test_accuracy":
        return f"{100 * value:.2f}"
    if column == "params":
        return f"{value:,.0f}"
    if column == "latency_ms":
        return f"{value:.3g}"
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value)


def progress(name: str, epoch: int, metrics: Mapping[str, float]) -> None:
    """Print a line for an epoch."""
    if "val_accuracy" in metrics:
        print(f"{name}: epoch {epoch}, validation {100 * metrics['val_accuracy']:.2f}%", flush=True)
