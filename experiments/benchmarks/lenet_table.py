"""A table of separately trained `lenet` networks on mnist5k, with the accuracy after every epoch.

    python experiments/benchmarks/lenet_table.py --run runs/lenet_table --csv lenet_mnist5k.csv

An interrupted benchmark continues. `--evaluator lenet_mnist5k.csv` searches the table in seconds. Accuracies are on the
validation split.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

import slimsearch
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.record.trial import COMPLETE, Trial

_METRICS = ("params", "macs", "size_kib", "val_accuracy")


def main() -> int:
    """Train what is missing and write the table."""
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--networks", least=1, default=300, help="number of random networks")
    parser.add_argument("--epochs", least=1, default=10, help="epochs of each network")
    parser.add_argument("--workers", least=0, default=0, help="worker processes; 0: one per core")
    parser.add_argument("--run", type=Path, default=Path("runs/lenet_table"), help="the run directory")
    parser.add_argument("--csv", type=Path, required=True, help="write the table to this file")
    options = parser.parse_args()
    return exit_code(lambda: _make(options))


def _make(options: argparse.Namespace) -> None:
    if (options.run / "config.yaml").is_file():
        result = slimsearch.resume(options.run, trials=options.networks, workers=options.workers)
    else:
        result = slimsearch.search(
            "lenet", "mnist5k", sampler="random", trials=options.networks, epochs=options.epochs, compress="none",
            top_k=0, objectives="val_accuracy,params", workers=options.workers, run_dir=str(options.run),
        )  # fmt: skip
    write(result.trials, options.csv)
    print(f"{options.csv}: {sum(t.state == COMPLETE for t in result.trials)} networks")


def write(trials: tuple[Trial, ...], path: Path) -> None:
    """Write a row for each complete trial: choices, costs, and accuracy at the end and after every epoch."""
    complete = [t for t in trials if t.state == COMPLETE]
    labels = list(complete[0].candidate.architecture)
    epochs = [int(point["epoch"]) for point in complete[0].curve]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*labels, *_METRICS, *(f"val_accuracy@{epoch}" for epoch in epochs)])
        for trial in complete:
            writer.writerow(
                [
                    *(trial.candidate.architecture[label] for label in labels),
                    *(f"{trial.metrics[name]:.6g}" for name in _METRICS),
                    *(f"{point['val_accuracy']:.6g}" for point in trial.curve),
                ]
            )


if __name__ == "__main__":
    sys.exit(main())
