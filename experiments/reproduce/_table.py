"""The rows of a reproduction: printed as a table, written as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_COLUMNS = ("source", "what", "seed", "params", "test_accuracy", "latency_ms", "size_kib", "seconds")


def parser(description: str, out: str, seeds: int) -> argparse.ArgumentParser:
    """The options that all flows have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--seeds", type=int, default=seeds, help="how many seeds, from 0")
    made.add_argument("--json", type=Path, help="where the rows are written")
    made.add_argument("--out", type=Path, default=Path("runs") / "reproduce" / out, help="where networks are kept")
    made.add_argument(
        "--with-nni", action="store_true", help="run NNI's own flow too, once; its rows are kept in --out"
    )
    return made


def nni_rows(folder: Path, seed: int, make: Any) -> list[dict[str, Any]]:
    """What NNI's own flow gave: `make` is called once, and its rows are kept."""
    kept = folder / f"nni-{seed}.json"
    if not kept.is_file():
        rows = make()
        kept.with_suffix(".part").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        kept.with_suffix(".part").replace(kept)
    found: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def show(rows: Sequence[Mapping[str, Any]], path: Path | None, notes: Sequence[str] = ()) -> None:
    """Print the rows, and write them."""
    table = Table(title=str(rows[0]["flow"]))
    for column in _COLUMNS:
        table.add_column(
            column.replace("test_accuracy", "test %"), justify="left" if column in ("source", "what") else "right"
        )
    for row in rows:
        table.add_row(*(_text(column, row.get(column)) for column in _COLUMNS))
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")


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
    """A line for each epoch."""
    if "val_accuracy" in metrics:
        print(f"{name}: epoch {epoch}, validation {100 * metrics['val_accuracy']:.2f}%", flush=True)
