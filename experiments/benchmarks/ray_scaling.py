"""Scaling of ``--strategy ray``: trials per second, utilisation of workers, latency under load, simulated clusters.

    python experiments/benchmarks/ray_scaling.py --json ray_scaling.json --page docs/scaling.md
    python experiments/benchmarks/ray_scaling.py --quick

Each measurement starts a cluster on this machine, in a process of its own, and is stored in --out, so that an
interrupted benchmark continues. The simulation (see `_cluster_simulation`) follows from the measurements.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before NumPy is imported
        os.environ.setdefault(_name, "1")

from experiments.benchmarks import _latency_under_load, _ray_driver, _ray_no_op, _ray_utilisation, overhead
from experiments.benchmarks._output import add_output, check_output, stored, write_output
from experiments.benchmarks._ray_no_op import DEFAULTS, OURS, REUSED
from experiments.benchmarks._scaling_tables import HISTORY, tables
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.evaluators import processor
from slimsearch.options.configuration import Configuration


@dataclass(frozen=True)
class Scale:
    """Numbers of trials and workers.

    Attributes:
        repeats: repetitions of searches without evaluation.
        slow, fast: trials without evaluation, with the defaults of Ray Tune and otherwise.
        alive: numbers of workers with which the driver is timed; the first and the last one differ.
        driven: trials for the driver's time.
        workers: numbers of workers that train, with 1 among them.
        trials, epochs: of the training.
        shorter: epochs of a further training with the most workers.
    """

    repeats: int
    slow: int
    fast: int
    alive: tuple[int, ...]
    driven: int
    trials: int
    epochs: int
    shorter: int


_WORKERS = (1, 2)  # of the real trials
WHOLE = Scale(repeats=3, slow=20, fast=200, alive=(2, 8, 32), driven=200, trials=20, epochs=60, shorter=20)
QUICK = Scale(repeats=1, slow=4, fast=12, alive=(1, 2), driven=12, trials=4, epochs=1, shorter=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few trials, without meaningful results")
    parser.add_argument("--epochs", least=1, metavar="N", help=f"epochs of training, instead of {WHOLE.epochs}")
    parser.add_argument("--out", type=Path, default=Path("runs") / "ray_scaling", help="folder of measurements")
    add_output(parser, page=True)
    return parser


def _run(options: argparse.Namespace) -> None:
    check_output(options)
    options.out.mkdir(parents=True, exist_ok=True)
    size = QUICK if options.quick else WHOLE
    size = replace(size, epochs=options.epochs or size.epochs)
    found = {
        "quick": options.quick, "processor": processor()[0], "cores": os.cpu_count(),
        "python": platform.python_version(), "ray": version("ray"), **_measured(_Cache(options.out, size), size),
    }  # fmt: skip
    made = tables(found)
    print("\n".join(made.values()))
    write_output(options, found, made)


class _Cache:
    """Measurements stored in a folder, each made once in a process of its own.

    Args:
        folder: of the files; exists.
        size: which stored measurements must have.
    """

    def __init__(self, folder: Path, size: Scale) -> None:
        self._folder, self._size = folder, size

    def __call__(self, name: str, measure: Callable[..., Any], *arguments: Any) -> Any:
        """The stored result of `measure`, or a new one, as JSON values."""

        def measured() -> Any:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                return process.submit(measure, *arguments).result()

        return stored(self._folder / f"{name}.json", self._size, measured)

    def run(self, name: str) -> Path:
        """The folder of a run, without the remains of one that was interrupted."""
        folder = self._folder / name
        if folder.exists() and not (self._folder / f"{name}.json").is_file():
            shutil.rmtree(folder)
        return folder


def _measured(kept: _Cache, size: Scale) -> dict[str, Any]:
    kinds = ((DEFAULTS, _ray_no_op.defaults, size.slow), (REUSED, _ray_no_op.reusing, size.fast),
             (OURS, _ray_no_op.ours, size.fast))  # fmt: skip
    no_op = [
        {"what": what, "repeat": repeat, "trials": trials, **kept(f"no_op-{place}-{repeat}", measure, trials)}
        for repeat in range(size.repeats)
        for place, (what, measure, trials) in enumerate(kinds)
    ]
    driven = [kept(f"driver-{workers}", _ray_driver.drive, workers, size.driven) for workers in size.alive]
    proposals = kept("proposals", overhead.proposals, [Configuration.sampler])
    runs = {workers: kept.run(f"real-{workers}") for workers in _WORKERS}
    real = [
        kept(f"real-{workers}", _ray_utilisation.real_trials, folder, workers, size.trials, size.epochs)
        for workers, folder in runs.items()
    ]
    most = max(_WORKERS)
    shorter = kept(
        "real-shorter", _ray_utilisation.real_trials, kept.run("real-shorter"), most, size.trials, size.shorter
    )
    loaded = next(run for run in real if run["workers"] == most)
    files = [runs[loaded["workers"]] / trial["model"] for trial in loaded["trials"]]
    latency = kept("latency", _latency_under_load.measure, files, _ray_utilisation.DATASET)
    return {
        "no_op": no_op,
        "driver": driven,
        "proposals": [
            {"sampler": row["sampler"], "history": row["history"], "ms": sorted(row["ms"])[len(row["ms"]) // 2]}
            for row in proposals
            if row["history"] >= HISTORY
        ],
        "real": real,
        "shorter": shorter,
        "latency": {"workers": loaded["workers"], **latency},
    }


if __name__ == "__main__":
    sys.exit(main())
