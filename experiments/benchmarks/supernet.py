"""A supernet against networks that are trained one by one: best network and time.

    python experiments/benchmarks/supernet.py --mnist data --json supernet.json

First --networks random networks are trained. Then, for each seed, a supernet is trained, its subnets are scored with
inherited weights, and the --finalists best ones are trained for as many epochs. Each run has one worker. The best
network is chosen by validation accuracy, and the test split is read for it alone. Finished runs are stored in --out; a
run that was interrupted starts again, since its time would be wrong.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

from rich.table import Table

import slimsearch
from experiments.benchmarks._output import add_output, check_output, console, stored, write_output
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.loop.supernet_phase import rank_correlation
from slimsearch.record.trial import COMPLETE, SEARCH
from slimsearch.report.result import Result

WITHIN, SHARE = 0.002, 0.25
"""The goal: largest distance from the best accuracy, and share of the time."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, compare and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--mnist", type=Path, help="folder that torchvision.datasets.MNIST reads; by default mnist5k")
    parser.add_argument("--space", default="lenet", help="space of the networks")
    parser.add_argument("--networks", least=1, default=60, help="networks to train one by one")
    parser.add_argument("--epochs", least=1, default=10, help="epochs of a network")
    parser.add_argument("--supernet-epochs", least=1, default=10, help="epochs of the supernet")
    parser.add_argument("--subnets", least=1, default=60, help="subnets to score")
    parser.add_argument("--finalists", least=1, default=5, help="subnets to train")
    parser.add_argument("--seeds", least=1, default=3, help="number of supernets")
    parser.add_argument("--out", type=Path, default=Path("runs") / "supernet_benchmark", help="folder of the runs")
    add_output(parser)
    return parser


def _run(options: argparse.Namespace) -> None:
    check_output(options)
    shared = {
        "space": options.space, "epochs": options.epochs, "objectives": "val_accuracy", "compress": "none", "top_k": 1,
        "workers": 1, **({"dataset": "mnist", "data_root": str(options.mnist)} if options.mnist else {}),
    }  # fmt: skip
    apart = {**shared, "sampler": "random", "trials": options.networks, "seed": 0}
    rows = [_stored(options.out / "one_by_one", "one by one", apart)]
    for seed in range(options.seeds):
        together = {
            **shared, "strategy": "supernet", "trials": options.finalists, "seed": seed,
            "subnets": options.subnets, "supernet_epochs": options.supernet_epochs,
        }  # fmt: skip
        rows.append(_stored(options.out / f"supernet-{seed}", "supernet", together))
    _show(rows)
    write_output(options, rows)


def _stored(folder: Path, what: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a run, stored or new."""

    def search() -> dict[str, Any]:
        if folder.exists():
            shutil.rmtree(folder)
        started = time.perf_counter()
        result = slimsearch.search(run_dir=str(folder), **options)
        return {**_row(what, result, time.perf_counter() - started), "options": dict(options)}

    row: dict[str, Any] = stored(folder.with_suffix(".json"), options, search)
    return row


def _row(what: str, result: Result, seconds: float) -> dict[str, Any]:
    """The row of a run that took `seconds`."""
    trained = [t for t in result.trials if t.kind == SEARCH and t.state == COMPLETE]
    best = result.models[0]
    correlation = rank_correlation(result.trials, "val_accuracy")
    return {
        "what": what,
        "networks_trained": len(trained),
        "seconds": seconds,
        "val_accuracy": best["metrics"]["val_accuracy"],
        "test_accuracy": best["metrics"]["test_accuracy"],
        "median_val_accuracy": statistics.median(t.metrics["val_accuracy"] for t in trained),
        "rank_correlation": correlation[0] if correlation is not None else None,
        "architecture": best["architecture"],
    }


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    shown = console()
    made = Table(title="best network by validation accuracy", title_justify="left")
    for heading in ("networks", "trained", "validation %", "test %", "median validation %", "seconds", "share of time"):
        made.add_column(heading, justify="left" if heading == "networks" else "right")
    first = rows[0]
    for row in rows:
        made.add_row(
            row["what"] if row is first else f"{row['what']}, seed {row['options']['seed']}",
            str(row["networks_trained"]), *(f"{100 * row[name]:.2f}" for name in
            ("val_accuracy", "test_accuracy", "median_val_accuracy")), f"{row['seconds']:.0f}",
            f"{row['seconds'] / first['seconds']:.2f}",
        )  # fmt: skip
    shown.print(made)
    within = [first["val_accuracy"] - row["val_accuracy"] <= WITHIN + 1e-9 for row in rows[1:]]
    fast = [row["seconds"] <= SHARE * first["seconds"] for row in rows[1:]]
    both = [close and quick for close, quick in zip(within, fast, strict=True)]
    shown.print(
        f"of {len(both)} seeds: within {100 * WITHIN:g} points of the best of {first['networks_trained']}: "
        f"{sum(within)}; in {SHARE:g} of the time: {sum(fast)}; both: {sum(both)}",
        markup=False, highlight=False,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
