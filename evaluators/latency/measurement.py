"""Latency measurement with confidence intervals.

The latency of a file differs by some percent from one load to the next, depending on its memory addresses. A
measurement therefore consists of rounds: each round loads all files again and alternates between them in blocks of
repeated calls. A block is discarded and repeated if the reference network, timed before and after it, was disturbed.
The latency is the median of the rounds' medians, and its interval comes from the rounds.

Boards run this module too, see `slimsearch.evaluators.latency.boards`.
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from slimsearch.evaluators.deployed.deployed_model import Array, DeployedModel, read_file
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.latency.reference import CallTimes, Reference, ReferenceModels, pinned, preemptions
from slimsearch.progress import progress

_WARM_UP_SECONDS = 0.005
_BLOCK_SECONDS = 0.002
_BLOCKS_PER_ROUND = 3
_LEVEL = 0.95


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call.

    Attributes:
        median_ms: the median of the rounds.
        low_ms, high_ms: its 95% interval from the order statistics of the rounds; their whole range for fewer than six.
        blocks: number of blocks used.
        discarded: number of blocks discarded because they were disturbed.
        calm: whether the used blocks were undisturbed; otherwise the machine stayed busy, and the least disturbed
            blocks are used.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    blocks: int
    discarded: int
    calm: bool

    @classmethod
    def predicted(cls, ms: float) -> Latency:
        """A latency that is predicted, not measured."""
        return cls(ms, ms, ms, 0, 0, True)

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """As metrics: ``<prefix>latency_ms`` and others."""
        return {
            f"{prefix}latency_ms": self.median_ms,
            f"{prefix}latency_low_ms": self.low_ms,
            f"{prefix}latency_high_ms": self.high_ms,
            f"{prefix}latency_blocks": float(self.blocks),
            f"{prefix}latency_discarded": float(self.discarded),
            f"{prefix}latency_calm": float(self.calm),
        }


@dataclass(frozen=True)
class MeasurementSettings:
    """How files are measured.

    Attributes:
        input_shape: (C, H, W) of an example.
        batch: examples per call.
        threads: per call; the calling thread is pinned to as many cores, and a single thread moves to a calm core.
        runtime: one of `slimsearch.runtimes.RUNTIMES`.
        blocks: per file, three in a round.
        patience: total seconds to wait for a calm machine. After that, disturbed blocks are used, see `Latency.calm`.
        patience_beside_others: the same while other processes of Slimsearch compute.
    """

    input_shape: tuple[int, ...]
    batch: int = 1
    threads: int = 1
    runtime: str = "onnxruntime"
    blocks: int = 18
    patience: float = 10.0
    patience_beside_others: float = 10.0


@dataclass(frozen=True)
class Measured:
    """Latencies of files that were measured together.

    Attributes:
        latencies: in the order of the files.
        alone: whether all other processes of Slimsearch paused.
        board: number of the board that measured, from 1; None: this machine did.
    """

    latencies: list[Latency]
    alone: bool
    board: int | None = None

    def metrics(self) -> dict[str, float]:
        """Metrics that say how and where the files were measured."""
        where = {} if self.board is None else {"latency_board": float(self.board)}
        return {"latency_alone": float(self.alone), **where}


class LatencyDevice(Protocol):
    """Where files are measured: this machine, or boards over SSH."""

    def measure(self, paths: Sequence[Path], settings: MeasurementSettings) -> Measured:
        """Measure files, interleaved.

        Raises:
            SlimsearchError: a file cannot be loaded, or the device does not answer.
        """


class ThisMachine:
    """This machine, without the other processes of Slimsearch, which `meter` pauses."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def measure(self, paths: Sequence[Path], settings: MeasurementSettings) -> Measured:
        """See `LatencyDevice.measure`."""
        return measure_alone([(path, read_file(path, settings.runtime)) for path in paths], settings, self._meter)


@dataclass
class BlockTimes:
    """All blocks of one file, by round: seconds per call, and those of the reference around the block."""

    rounds: list[list[tuple[float, CallTimes]]] = field(default_factory=list)

    def calm_blocks(self, reference: Reference, position: int) -> int:
        """Number of undisturbed blocks of a round."""
        return sum(reference.calm(nearby) for _, nearby in self.rounds[position])

    def calm_rounds(self, reference: Reference) -> int:
        """Number of rounds with enough undisturbed blocks."""
        return sum(self.calm_blocks(reference, i) >= _BLOCKS_PER_ROUND for i in range(len(self.rounds)))

    def latency(self, reference: Reference, rounds: int) -> Latency:
        """The latency from the `rounds` calmest rounds."""
        medians, blocks, calm = [], 0, True
        order = sorted(range(len(self.rounds)), key=lambda i: -min(self.calm_blocks(reference, i), _BLOCKS_PER_ROUND))
        for position in order[:rounds]:
            least_disturbed = sorted(self.rounds[position], key=lambda block: reference.disturbance(block[1]))
            used = [block for block in least_disturbed if reference.calm(block[1])]
            if len(used) < _BLOCKS_PER_ROUND:
                calm = False
                used = least_disturbed[:_BLOCKS_PER_ROUND]
            medians.append(float(np.median([seconds for seconds, _ in used])) * 1000)
            blocks += len(used)
        low, high = median_interval(sorted(medians))
        return Latency(float(np.median(medians)), low, high, blocks, sum(map(len, self.rounds)) - blocks, calm)


def measure_latency(
    paths: Sequence[Path],
    input_shape: tuple[int, ...],
    *,
    batch: int = 1,
    threads: int = 1,
    runtime: str = "onnxruntime",
    blocks: int = 18,
    patience: float = 10.0,
) -> list[Latency]:
    """Measure the latency of several files, interleaved, so that a drift of the machine affects all alike.

    Call it within `Meter.exclusive`.

    Args:
        paths: of the files.
        input_shape, batch, threads, runtime, blocks, patience: see `MeasurementSettings`.

    Raises:
        SlimsearchError: a file cannot be loaded.
    """
    settings = MeasurementSettings(input_shape, batch, threads, runtime, blocks, patience)
    return _measure([(path, read_file(path, runtime)) for path in paths], settings, None)


def measure_alone(
    files: Sequence[tuple[Path, bytes]], settings: MeasurementSettings, meter: Meter,
    models: ReferenceModels | None = None,
) -> Measured:  # fmt: skip
    """Measure files while `meter` pauses the other processes of Slimsearch.

    Args:
        files: path, for messages, and content of each.
        settings: see `MeasurementSettings`.
        meter: of this process.
        models: of the reference networks; None: `reference_models`.

    Raises:
        SlimsearchError: a file cannot be loaded.
    """
    with meter.exclusive() as alone:
        if not alone:
            settings = replace(settings, patience=settings.patience_beside_others)
        return Measured(_measure(files, settings, models), alone)


def _measure(
    files: Sequence[tuple[Path, bytes]], settings: MeasurementSettings, models: ReferenceModels | None
) -> list[Latency]:
    threads, rounds = settings.threads, max(1, math.ceil(settings.blocks / _BLOCKS_PER_ROUND))
    shape = (settings.batch, *settings.input_shape)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    times = [BlockTimes() for _ in files]
    collecting = gc.isenabled()
    gc.disable()  # a garbage collection would add to the latency of a block
    try:
        with pinned(threads):
            reference = Reference(threads, models=models)
            until = time.monotonic() + settings.patience
            with progress(f"measuring the latency of {len(files)} files", rounds) as advance:
                while any(file.calm_rounds(reference) < rounds for file in times):
                    if time.monotonic() >= until and len(times[0].rounds) >= rounds:
                        break
                    started = time.monotonic()
                    loaded = [DeployedModel(path, threads, settings.runtime, content) for path, content in files]
                    repeats = [_warm_up(model, images) for model in loaded]
                    until += time.monotonic() - started  # patience is spent on disturbances only
                    until = _round(loaded, repeats, images, times, reference, until)
                    advance()
            reference.store()
    finally:
        if collecting:
            gc.enable()
    return [file.latency(reference, rounds) for file in times]


def _warm_up(model: DeployedModel, images: Array) -> int:
    """Call a model until it is warm; returns the number of calls in a block.

    The fastest call decides: a runtime's first ones may take milliseconds, and a block of few calls is slower.
    """
    model(images)
    start, fastest, runs = time.perf_counter(), math.inf, 0
    while runs < 3 or time.perf_counter() - start < _WARM_UP_SECONDS:
        began = time.perf_counter()
        model(images)
        fastest = min(fastest, time.perf_counter() - began)
        runs += 1
    return max(1, round(_BLOCK_SECONDS / fastest))


def _round(
    models: list[DeployedModel],
    repeats: list[int],
    images: Array,
    times: list[BlockTimes],
    reference: Reference,
    until: float,
) -> float:
    """One round of blocks, until every model has enough undisturbed ones; returns `until` plus the undisturbed time."""
    for file in times:
        file.rounds.append([])
    before = reference.time()
    for turn in itertools.count():
        lacking = [i for i, file in enumerate(times) if file.calm_blocks(reference, -1) < _BLOCKS_PER_ROUND]
        if not lacking or (turn >= _BLOCKS_PER_ROUND and time.monotonic() >= until):
            return until
        for i in lacking:
            started = time.monotonic()
            models[i](images)  # refill the caches after the other models
            switches = preemptions()
            start = time.perf_counter()
            for _ in range(repeats[i]):
                models[i](images)
            seconds = (time.perf_counter() - start) / repeats[i]
            after = reference.time()
            nearby = reference.around(before, after, switches)
            times[i].rounds[-1].append((seconds, nearby))
            before = after
            if reference.calm(nearby):
                until += time.monotonic() - started
            elif reference.wait(until):
                before = reference.time()
    raise AssertionError  # unreachable


def median_interval(ordered: Sequence[float]) -> tuple[float, float]:
    """Confidence interval of the median, at least 95%, between two order statistics; the whole range if too few.

    Args:
        ordered: the sample in ascending order.
    """
    count = len(ordered)
    coverage, skipped = 1 - 2 * 0.5**count, 0
    while skipped + 1 < count / 2:
        narrower = coverage - 2 * math.comb(count, skipped + 1) * 0.5**count
        if narrower < _LEVEL:
            break
        coverage, skipped = narrower, skipped + 1
    return ordered[skipped], ordered[count - 1 - skipped]
