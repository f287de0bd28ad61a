"""A table of separately trained `lenet` networks on mnist5k, with the accuracy after every epoch.

    python experiments/benchmarks/lenet_table.py --run runs/lenet_table --csv lenet_mnist5k.csv

An interrupted one goes on. The table is what `--evaluator lenet_mnist5k.csv` searches in seconds; its accuracies are of
the validation split.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # in place of this folder

import slimsearch  # noqa: E402
from slimsearch.cli.command_parser import CommandParser  # noqa: E402
from slimsearch.cli.exit_code import exit_code  # noqa: E402
from slimsearch.record.trial import COMPLETE, Trial  # noqa: E402

_METRICS = ("params", "macs", "size_kib", "val_accuracy")


def main() -> int:
    """Train what is missing and write the table."""
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--networks", type=int, default=300, help="drawn at random")
    parser.add_argument("--epochs", type=int, default=10, help="of training, for each")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: as many as there are cores")
    parser.add_argument("--run", type=Path, default=Path("runs/lenet_table"), help="the run directory")
    parser.add_argument("--csv", type=Path, required=True, help="where the table goes")
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
    """A row for each complete trial: its choices, its costs, and its accuracy at the end and after every epoch."""
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
