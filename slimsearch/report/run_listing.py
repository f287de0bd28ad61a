"""The runs in a folder, a line each."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError
from slimsearch.report.stored_run import StoredRun, stored_run

if TYPE_CHECKING:
    from rich.table import Table


def listing(folder: Path) -> list[dict[str, Any]]:
    """What there is to say of each run directly in `folder`, the latest last; of a damaged one, what is wrong.

    Raises:
        SlimsearchError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise SlimsearchError(f"there is no folder '{folder}'")
    found = [_entry(path) for path in folder.iterdir() if (path / "config.yaml").is_file()]
    if not found:
        raise SlimsearchError(f"there are no runs in '{folder}'")
    return sorted(found, key=lambda entry: (entry.get("started") or 0.0, entry["run"]))


def table(entries: Sequence[dict[str, Any]]) -> Table:
    """The entries of `listing` to look at."""
    from rich.markup import escape
    from rich.table import Table

    made = Table()
    for heading in ("run", "state", "space", "data", "by", "trials", "best val %", "on the front", "begun"):
        right = heading in ("trials", "best val %", "on the front")
        made.add_column(
            heading, justify="right" if right else "left", overflow="fold", no_wrap=heading in ("state", "begun")
        )
    for entry in entries:
        if "error" in entry:
            continue
        accuracy, started = entry["best_val_accuracy"], entry["started"]
        made.add_row(
            escape(Path(entry["run"]).name),
            entry["state"],
            escape(entry["space"]),
            escape(entry["dataset"]),
            escape(entry["by"]),
            f"{entry['searched']} / {entry['trials']}",
            "" if accuracy is None else f"{100 * accuracy:.2f}",
            str(entry["on_front"] or ""),
            f"{datetime.datetime.fromtimestamp(started):%Y-%m-%d %H:%M}" if started else "",
        )
    return made


def _entry(path: Path) -> dict[str, Any]:
    try:
        return {"run": str(path), **_described(stored_run(path))}
    except SlimsearchError as error:
        return {"run": str(path), "error": str(error)}


def _described(run: StoredRun) -> dict[str, Any]:
    options = run.configuration
    feasible = run.ranking.feasible([t.finalised() for t in run.trials])
    accuracies = [t.metrics["val_accuracy"] for t in feasible if "val_accuracy" in t.metrics]
    return {
        "state": run.state,
        "space": Path(options.space).name or Path(options.evaluator).name,
        "dataset": run.environment["dataset"]["name"],
        "by": f"{options.strategy}, {options.sampler}",
        "searched": run.searched,
        "trials": options.trials,
        "best_val_accuracy": max(accuracies, default=None),
        "on_front": len(run.ranking.front([t.finalised() for t in run.trials])),
        "started": min((t.started for t in run.trials), default=None),
    }
