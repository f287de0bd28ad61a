"""How ``--strategy ray`` scales: trials a second, the workers' utilisation, latency under load, simulated clusters.

    python experiments/benchmarks/ray_scaling.py --json ray_scaling.json --page docs/scaling.md
    python experiments/benchmarks/ray_scaling.py --quick

Clusters are started on this machine, one after the other, each measurement in a process of its own. What was measured
is kept in --out, so that an interrupted run goes on; the simulation follows from it (see `_cluster_simulation`, which
says what it assumes). The page gets the tables in its marked places.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # in place of this folder
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before numpy is there: a driver has one core at most
        os.environ.setdefault(_name, "1")

from experiments.benchmarks import _driver_costs, _latency_under_load, _ray_no_op, _ray_utilisation, overhead
from experiments.benchmarks._page import filled
from experiments.benchmarks._ray_no_op import DEFAULTS, OURS, REUSED
from experiments.benchmarks._scaling_tables import HISTORY, tables
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import processor
from slimsearch.files import write_json, write_text
from slimsearch.options.configuration import Configuration


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        repeats: of each kind of trials that do nothing.
        slow, fast: how many of them there are, with the defaults of Ray Tune and otherwise.
        alive: numbers of workers with which the driver is timed; the first and the last differ.
        driven: trials that are timed then.
        workers: numbers of workers that train; 1 is among them.
        trials, epochs: that they train.
        shorter: epochs of as many trials that are trained once more, with the most workers.
    """

    repeats: int
    slow: int
    fast: int
    alive: tuple[int, ...]
    driven: int
    workers: tuple[int, ...]
    trials: int
    epochs: int
    shorter: int


WHOLE = Size(
    repeats=3, slow=20, fast=200, alive=(2, 8, 32), driven=200, workers=(1, 2), trials=20, epochs=60, shorter=20
)
QUICK = Size(repeats=1, slow=4, fast=12, alive=(1, 2), driven=12, workers=(1, 2), trials=4, epochs=1, shorter=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    made = CommandParser(__doc__.partition("\n")[0])
    made.add_argument("--quick", action="store_true", help="so few trials that the figures say nothing")
    made.add_argument("--epochs", type=int, metavar="N", help=f"of the networks that are trained, not {WHOLE.epochs}")
    made.add_argument("--out", type=Path, default=Path("runs") / "ray_scaling", help="where measurements are kept")
    made.add_argument("--json", type=Path, metavar="PATH", help="where what was measured is written")
    made.add_argument("--page", type=Path, metavar="PATH", help="a page in Markdown whose tables are written anew")
    return made


def _run(options: argparse.Namespace) -> None:
    if options.epochs is not None and options.epochs < 1:
        raise SlimsearchError(f"--epochs {options.epochs} is less than 1")
    if options.page is not None and not options.page.is_file():
        raise SlimsearchError(f"--page '{options.page}': there is no such file")
    for path in (options.out / "kept", options.json):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)  # what cannot be, fails before the work
    size = QUICK if options.quick else WHOLE
    size = replace(size, epochs=options.epochs or size.epochs)
    found = {
        "quick": options.quick, "processor": processor()[0], "cores": os.cpu_count(),
        "python": platform.python_version(), "ray": version("ray"), **_measured(_Kept(options.out, size), size),
    }  # fmt: skip
    made = tables(found)
    print("\n".join(made.values()))
    if options.json is not None:
        write_json(options.json, found)
    if options.page is not None:
        write_text(options.page, filled(options.page.read_text(encoding="utf-8"), made))


class _Kept:
    """Measurements in files of a folder: each is made once, in a process of its own.

    Args:
        folder: of the files; exists.
        size: of what is measured, which those that are there must have.
    """

    def __init__(self, folder: Path, size: Size) -> None:
        self._folder, self._size = folder, json.loads(json.dumps(asdict(size)))

    def __call__(self, name: str, measure: Callable[..., Any], *arguments: Any) -> Any:
        """What `measure` gave, or gives now, as JSON has it.

        Raises:
            SlimsearchError: what is there was measured otherwise.
        """
        path = self._folder / f"{name}.json"
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["size"] != self._size:
                raise SlimsearchError(f"'{path}' is of a run of another size: remove it, or name another --out")
            return found["measured"]
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            measured = process.submit(measure, *arguments).result()
        text = json.dumps({"size": self._size, "measured": measured}, indent=1, default=asdict)
        write_text(path, text + "\n")
        return json.loads(text)["measured"]

    def run(self, name: str) -> Path:
        """Where a run of that name is kept; of one whose measurement is not, nothing is left."""
        folder = self._folder / name
        if folder.exists() and not (self._folder / f"{name}.json").is_file():
            shutil.rmtree(folder)
        return folder


def _measured(kept: _Kept, size: Size) -> dict[str, Any]:
    kinds = ((DEFAULTS, _ray_no_op.defaults, size.slow), (REUSED, _ray_no_op.reusing, size.fast),
             (OURS, _ray_no_op.ours, size.fast))  # fmt: skip
    no_op = [
        {"what": what, "repeat": repeat, "trials": trials, **kept(f"no_op-{place}-{repeat}", measure, trials)}
        for repeat in range(size.repeats)
        for place, (what, measure, trials) in enumerate(kinds)
    ]
    driven = [kept(f"driver-{workers}", _driver_costs.drive, workers, size.driven) for workers in size.alive]
    proposals = kept("proposals", overhead.proposals, [Configuration.sampler])
    runs = {workers: kept.run(f"real-{workers}") for workers in size.workers}
    real = [
        kept(f"real-{workers}", _ray_utilisation.real_trials, folder, workers, size.trials, size.epochs)
        for workers, folder in runs.items()
    ]
    most = max(size.workers)
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
