"""Repeatability of latency measurements on a busy machine.

    python experiments/benchmarks/latency_repeatability.py --json latency.json --page docs/latency.md

Networks of `lenet` and `mnist_cnn` within a factor of five in latency are measured three times. Meanwhile one process
per core trains, and does not pause for measurements: for some seconds all of them, then none.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import platform
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

import numpy as np
import torch

from experiments.benchmarks._latency_under_load import training
from experiments.benchmarks._output import add_output, check_output, table, write_output
from slimsearch import compression
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.evaluators import Latency, Meter, measure_latency, processor, runtime_version, use_one_thread
from slimsearch.search_spaces import ModelSpace

SHAPE, CLASSES = (1, 28, 28), 10
FACTOR = 5.0
REPEATS = 3
SPACES = ("lenet", "mnist_cnn")
PATIENCE = 120.0
_PHASE_SECONDS = (1.0, 6.0)
_DATASET = "mnist5k"


@dataclass(frozen=True)
class Repeatability:
    """Agreement of repeated measurements.

    Attributes:
        rank_correlation: the lowest Spearman correlation of two measurements.
        median_deviation, largest_deviation: of two measurements, relative to their mean, over all networks.
        seconds: median duration of a measurement.
        discarded: share of discarded blocks.
        calm: share of measurements on a calm machine.
    """

    rank_correlation: float
    median_deviation: float
    largest_deviation: float
    seconds: float
    discarded: float
    calm: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--networks", least=3, default=20, metavar="N", help="number of networks")
    add_output(parser, page=True)
    return parser


def _run(options: argparse.Namespace) -> None:
    check_output(options)
    use_one_thread()
    with tempfile.TemporaryDirectory() as folder:
        files = networks(Path(folder), options.networks)
        found = {
            "processor": processor()[0], "cores": os.cpu_count(), "python": platform.python_version(),
            "runtime": runtime_version("onnxruntime"), **measured(files),
        }  # fmt: skip
    shown = table_of(found)
    print(shown)
    write_output(options, found, {"repeatability": shown})


def networks(folder: Path, count: int) -> list[Path]:
    """Export networks whose latencies are evenly spread over the factor on a logarithmic scale."""
    files: list[Path] = []
    rng = np.random.default_rng(0)
    for name in SPACES:
        space = ModelSpace.load(name, SHAPE, CLASSES)
        points = list(itertools.islice(space.grid(), 0, None, 7)) if name == "lenet" else list(space.grid())
        chosen = rng.permutation(len(points))[: max(3 * count, 18)]
        for position in chosen:
            files.append(folder / f"{name}-{position}.onnx")
            network = compression.Network(space.build(points[position], 0).eval())
            compression.export_onnx(network, files[-1], torch.zeros(2, *SHAPE))
    with Meter().exclusive():
        milliseconds = [found.median_ms for found in measure_latency(files, SHAPE, blocks=10)]
    wanted = min(milliseconds) * np.geomspace(1, 0.95 * FACTOR, count)  # margin for the next measurement
    left = dict(enumerate(milliseconds))
    result = []
    for target in wanted:
        nearest = min(left, key=lambda i: abs(np.log(left[i] / target)))
        del left[nearest]
        result.append(files[nearest])
    return result


def measured(files: Sequence[Path]) -> dict[str, Any]:
    """Latencies of the files by each way of measuring, and their agreement."""
    ways: dict[str, Callable[[], list[Latency]]] = {
        "together": lambda: measure_latency(files, SHAPE, patience=PATIENCE),
        "one by one": lambda: [measure_latency([file], SHAPE, patience=PATIENCE / 10)[0] for file in files],
        "together, without waiting for calm": lambda: measure_latency(files, SHAPE, patience=0.0),
    }
    with Meter().exclusive():
        quiet = ways["together"]()
        found: dict[str, Any] = {
            "networks": len(files),
            "quiet_ms": [latency.median_ms for latency in quiet],
            "ways": {},
        }
        with _load():
            for name, measure in ways.items():
                runs, seconds = [], []
                for _ in range(REPEATS):
                    start = time.monotonic()
                    runs.append(measure())
                    seconds.append(time.monotonic() - start)
                found["ways"][name] = {
                    "milliseconds": [[latency.median_ms for latency in run] for run in runs],
                    "agreement": asdict(repeatability(runs, seconds)),
                    "ratio_to_quiet": median(
                        latency.median_ms / before.median_ms
                        for run in runs
                        for latency, before in zip(run, quiet, strict=True)
                    ),
                }
    return found


def repeatability(runs: Sequence[Sequence[Latency]], seconds: Sequence[float]) -> Repeatability:
    """Compare repeated measurements of the same files."""
    from scipy.stats import spearmanr

    values = [[latency.median_ms for latency in run] for run in runs]
    pairs = list(itertools.combinations(values, 2))
    deviations = [2 * abs(a - b) / (a + b) for one, other in pairs for a, b in zip(one, other, strict=True)]
    every = [latency for run in runs for latency in run]
    return Repeatability(
        min(float(spearmanr(one, other).statistic) for one, other in pairs), median(deviations), max(deviations),
        median(seconds), sum(x.discarded for x in every) / sum(x.discarded + x.blocks for x in every),
        sum(x.calm for x in every) / len(every),
    )  # fmt: skip


@contextlib.contextmanager
def _load() -> Iterator[None]:
    """One process per core trains for some seconds, then pauses, all at the same time."""
    ended = threading.Event()
    phases = random.Random(0)
    with training(_DATASET, os.cpu_count() or 1) as processes:
        numbers = [process.pid for process in processes if process.pid is not None]

        def switch() -> None:
            while not ended.wait(phases.uniform(*_PHASE_SECONDS)):
                for number in numbers:
                    os.kill(number, signal.SIGSTOP)
                ended.wait(phases.uniform(*_PHASE_SECONDS))
                for number in numbers:
                    os.kill(number, signal.SIGCONT)

        thread = threading.Thread(target=switch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def table_of(found: dict[str, Any]) -> str:
    """The results as a table in Markdown."""
    headings = (
        "measured", "lowest rank correlation", "median deviation", "largest", "median ratio to the quiet machine",
        "blocks thrown away", "seconds",
    )  # fmt: skip
    rows = []
    for name, way in found["ways"].items():
        a = way["agreement"]
        rows.append(
            (
                name, f"{a['rank_correlation']:.3f}", f"{100 * a['median_deviation']:.1f}%",
                f"{100 * a['largest_deviation']:.1f}%", f"{way['ratio_to_quiet']:.3f}", f"{100 * a['discarded']:.0f}%",
                f"{a['seconds']:.0f}",
            )
        )  # fmt: skip
    return table(headings, rows)


if __name__ == "__main__":
    sys.exit(main())
