"""Small files for signals and tables beside MiniROCKET and gradient boosting, on data sets that packages ship.

Each row is a search of `signal_cnn` or `mlp` for files of at most 64 KiB, for each seed. The file that is best on the
validation split is read on the test split, once. The baselines train on the training and the validation split together,
with their defaults: MiniROCKET of aeon (Dempster et al. 2021) with a ridge classifier, and the histogram gradient
boosting of scikit-learn, which sees a signal as a row of numbers. aeon needs older packages than `constraints.txt` has:
install it in an environment of its own, with ``pip install -e . aeon``. Rows that are in ``--json`` already are kept.

    python experiments/benchmarks/tasks.py --json tasks.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

import numpy as np

import slimsearch
from experiments.benchmarks._output import add_output, check_output, known_rows, table, write_output
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import Dataset

SIGNALS = ("gunpoint", "italy_power_demand", "arrow_head", "basic_motions", "osuleaf", "acsf1")
TABLES = ("breast_cancer", "wine", "digits", "diabetes")
_MAX_KIB = 64
_TEST_SHARE = 0.3  # of tables, which have no test split


def main(arguments: Sequence[str] | None = None) -> int:
    """Search and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__.partition("\n")[0])
    names = [*SIGNALS, *TABLES]
    parser.add_argument("--data", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", least=1, default=3, metavar="N", help="searches of each data set")
    parser.add_argument("--trials", least=1, default=10, metavar="N", help="candidates of a search")
    parser.add_argument("--epochs", least=1, default=40, metavar="N", help="epochs of each candidate")
    parser.add_argument("--workers", least=0, default=0, metavar="N", help="worker processes; 0: one for each core")
    add_output(parser)
    return parser


def _run(options: argparse.Namespace) -> None:
    check_output(options)
    rows = known_rows(options)
    for seed in range(options.seeds):
        for name in options.data:
            if any((row["data"], row["seed"]) == (name, seed) for row in rows):
                continue
            rows.append(_row(name, seed, options))
            print(rows[-1], flush=True)
            write_output(options, rows)
    print(_table(rows))


def _row(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    task = "regression" if name == "diabetes" else "classification"
    are_signals = name in SIGNALS
    given = signals(name) if are_signals else _table_data(name, seed)
    data = slimsearch.load_dataset(given, task=task, input_kind="signal" if are_signals else "table")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="slimsearch-tasks-") as folder:
        found = slimsearch.search(
            "signal_cnn" if are_signals else "mlp", data, trials=options.trials, epochs=options.epochs, seed=seed,
            workers=options.workers, batch_size=16, max_size_kib=_MAX_KIB, compress="quantize", run_dir=f"{folder}/run",
            top_k=3, show=False,
        )  # fmt: skip
        leading, direction = data.task.leading()
        sign = 1 if direction == "maximize" else -1
        best = max(found.models, key=lambda model: sign * model["metrics"][f"val_{leading}"])
    metrics = best["metrics"]
    row = {
        "data": name, "seed": seed, "metric": leading, "train": len(data.train), "test": metrics["test_images"],
        "slimsearch": metrics[f"test_{leading}"], "kib": metrics["size_kib"], "ms": metrics["latency_ms"],
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    return {**row, **_baselines(data, seed, are_signals=are_signals)}


def signals(name: str) -> tuple[Any, ...]:
    """Signals (N, C, L) and classes (N,) of training and test, of a data set in the package aeon.

    Raises:
        SlimsearchError: it is not installed.
    """
    try:
        from aeon import datasets
    except ImportError as error:
        raise SlimsearchError("the signals are in the package aeon: pip install aeon, or --data with tables") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (x, y), (test_x, test_y) = (getattr(datasets, f"load_{name}")(split=split) for split in ("train", "test"))
    names = sorted(set(y))
    return x, np.searchsorted(names, y), test_x, np.searchsorted(names, test_y)


def _table_data(name: str, seed: int) -> tuple[Any, ...]:
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    strata = None if name == "diabetes" else y
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=_TEST_SHARE, random_state=seed, stratify=strata)
    return train_x, train_y, test_x, test_y


def _baselines(data: Dataset, seed: int, *, are_signals: bool) -> dict[str, float]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    assert data.test is not None
    x = np.concatenate([data.train.inputs, data.validation.inputs]).astype(np.float64)
    y = np.concatenate([data.train.targets, data.validation.targets])
    test = np.asarray(data.test.inputs)
    found = {}
    if are_signals:
        from aeon.classification.convolution_based import MiniRocketClassifier

        rocket = MiniRocketClassifier(random_state=seed).fit(x, y)
        found["minirocket"] = rocket.score(test.astype(np.float64), data.test.targets)
    trees = HistGradientBoostingRegressor if data.task.name == "regression" else HistGradientBoostingClassifier
    fitted = trees(random_state=seed).fit(x.reshape(len(x), -1), y.ravel())
    found["boosting"] = fitted.score(test.reshape(len(test), -1), data.test.targets.ravel())
    return {name: float(value) for name, value in found.items()}


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Medians over the seeds."""
    lines = []
    for name in dict.fromkeys(row["data"] for row in rows):
        of = [row for row in rows if row["data"] == name]

        def middle(key: str, of: Sequence[dict[str, Any]] = of) -> float:
            return float(median(row[key] for row in of if key in row))

        form = "{:.1%}" if of[0]["metric"] == "accuracy" else "{:.3f}"
        scores = [form.format(middle(key)) if key in of[0] else "" for key in ("slimsearch", "minirocket", "boosting")]
        lines.append(
            [
                name, str(of[0]["train"]), of[0]["metric"], *scores, f"{middle('kib'):.1f}", f"{middle('ms'):.3f}",
                f"{middle('seconds'):.0f}",
            ]
        )  # fmt: skip
    headings = ["data", "train", "metric", "Slimsearch", "MiniROCKET", "boosting", "KiB", "ms", "seconds"]
    return table(headings, lines)


if __name__ == "__main__":
    sys.exit(main())
