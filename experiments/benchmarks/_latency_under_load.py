"""Latency measured while other processes train, against latency on a quiet machine."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median

import slimsearch
from slimsearch.evaluators import Meter, measure_latency, use_one_thread
from slimsearch.evaluators.datasets import Dataset

_PATIENCE = 120.0


@dataclass(frozen=True)
class LatenciesUnderLoad:
    """Latencies of files in milliseconds.

    Attributes:
        quiet, again: on a quiet machine, twice.
        beside: without `Meter`, while one process trains.
        beside_two: without `Meter`, while two processes train.
    """

    quiet: list[float]
    again: list[float]
    beside: list[float]
    beside_two: list[float]


@dataclass(frozen=True)
class QuietComparison:
    """Agreement of latencies with those of a quiet machine.

    Attributes:
        rank_correlation: Spearman's; None if it is undefined.
        ratio, lowest, highest: median and extremes of the ratio to the quiet latency.
    """

    rank_correlation: float | None
    ratio: float
    lowest: float
    highest: float


def measure(files: Sequence[Path], dataset: str) -> LatenciesUnderLoad:
    """Measure each file by itself, as an evaluation does; call it in a process of its own."""
    use_one_thread()
    data = slimsearch.load_dataset(dataset)
    with Meter().exclusive():
        quiet, again = (_each(files, data) for _ in range(2))
    with training(dataset, 1):
        beside = _each(files, data)
    with training(dataset, 2):
        beside_two = _each(files, data)
    return LatenciesUnderLoad(quiet, again, beside, beside_two)


def compare_with_quiet(latencies: Sequence[float], quiet: Sequence[float]) -> QuietComparison:
    """Compare latencies of the same files."""
    from scipy.stats import spearmanr

    varied = len(set(latencies)) > 1 and len(set(quiet)) > 1
    ratios = [one / other for one, other in zip(latencies, quiet, strict=True)]
    correlation = float(spearmanr(latencies, quiet).statistic) if varied else None
    return QuietComparison(correlation, median(ratios), min(ratios), max(ratios))


def _each(files: Sequence[Path], data: Dataset) -> list[float]:
    return [measure_latency([file], data.input_shape)[0].median_ms for file in files]


@contextlib.contextmanager
def training(dataset: str, count: int) -> Iterator[list[BaseProcess]]:
    """Processes that train, and do not pause for measurements."""
    context = multiprocessing.get_context("spawn")
    ended = context.Event()
    begun = [context.Event() for _ in range(count)]
    processes = [context.Process(target=_train, args=(dataset, event, ended), daemon=True) for event in begun]
    for process in processes:
        process.start()
    try:
        for event in begun:
            if not event.wait(_PATIENCE):
                raise TimeoutError("the training process did not start")
        yield list(processes)
    finally:
        ended.set()
        for process in processes:
            process.join()


def _train(dataset: str, begun: Event, ended: Event) -> None:
    use_one_thread()
    data = slimsearch.load_dataset(dataset)
    # The widest network of the space, which also loads memory.
    from slimsearch.search_spaces import ModelSpace

    space = ModelSpace.load("lenet", data.input_shape, len(data.classes))
    model = space.build({choice.label: choice.values[-1] for choice in space.choices})
    slimsearch.train(model, data, epochs=1)
    begun.set()
    while not ended.is_set():
        slimsearch.train(model, data, epochs=1)
