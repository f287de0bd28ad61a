"""How long one call of an exported file takes, with an interval that can be trusted.

One loading of a file may run some percent faster than the next one, depending on where its memory comes to lie. So a
measurement consists of rounds: in each round all files are loaded anew and take turns in blocks of repeated calls. A
block counts if the reference network, timed before and after it, was not disturbed; otherwise it is thrown away and
repeated. The latency is the median of the rounds' medians, and the rounds give its interval.
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from slimsearch.evaluators.deployed.deployed_model import Array, DeployedModel
from slimsearch.evaluators.latency.reference import Reference, Taken, pinned, preemptions

_WARM_UP_SECONDS = 0.005
_BLOCK_SECONDS = 0.002
_BLOCKS_A_ROUND = 3
_LEVEL = 0.95


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one call.

    Attributes:
        median_ms: the median over the rounds.
        low_ms, high_ms: its 95% interval from the order statistics of the rounds (the whole range, where they are
            fewer than six).
        blocks: that count.
        discarded: blocks that were thrown away because something disturbed the machine.
        calm: whether nothing disturbed the blocks that count; otherwise there was no calm while it was waited for, and
            those count that were disturbed least.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    blocks: int
    discarded: int
    calm: bool

    @classmethod
    def predicted(cls, ms: float) -> Latency:
        """One that was not measured."""
        return cls(ms, ms, ms, 0, 0, True)

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """As named numbers."""
        return {
            f"{prefix}latency_ms": self.median_ms,
            f"{prefix}latency_low_ms": self.low_ms,
            f"{prefix}latency_high_ms": self.high_ms,
            f"{prefix}latency_blocks": float(self.blocks),
            f"{prefix}latency_discarded": float(self.discarded),
            f"{prefix}latency_calm": float(self.calm),
        }


@dataclass
class _Timed:
    """What is known of a file: for each round, its blocks as (seconds for a call, those of the reference beside it)."""

    rounds: list[list[tuple[float, Taken]]] = field(default_factory=list)

    def calm(self, reference: Reference, position: int) -> int:
        """How many blocks of a round were not disturbed."""
        return sum(reference.calm(beside) for _, beside in self.rounds[position])

    def good(self, reference: Reference) -> int:
        """Rounds that have enough of them."""
        return sum(self.calm(reference, i) >= _BLOCKS_A_ROUND for i in range(len(self.rounds)))

    def latency(self, reference: Reference, rounds: int) -> Latency:
        medians, blocks, calm = [], 0, True
        # The rounds with most calm come first; the order of measurement decides among equals.
        order = sorted(range(len(self.rounds)), key=lambda i: -min(self.calm(reference, i), _BLOCKS_A_ROUND))
        for position in order[:rounds]:
            least_disturbed = sorted(self.rounds[position], key=lambda block: reference.disturbance(block[1]))
            counted = [block for block in least_disturbed if reference.calm(block[1])]
            if len(counted) < _BLOCKS_A_ROUND:
                calm = False
                counted = least_disturbed[:_BLOCKS_A_ROUND]
            medians.append(float(np.median([seconds for seconds, _ in counted])) * 1000)
            blocks += len(counted)
        low, high = _interval(sorted(medians))
        return Latency(float(np.median(medians)), low, high, blocks, sum(map(len, self.rounds)) - blocks, calm)


def measure_latency(
    paths: Sequence[Path],
    input_shape: tuple[int, int, int],
    *,
    batch: int = 1,
    threads: int = 1,
    runtime: str = "onnxruntime",
    blocks: int = 18,
    patience: float = 10.0,
) -> list[Latency]:
    """Latency of each file, measured in turns, so that a drift of the machine meets all of them.

    Call it while nothing else of one's own computes (`Meter.exclusive`). The calling thread is kept to as many cores as
    there are threads, and with one thread moves to a core that is calm.

    Args:
        paths: of the files.
        input_shape: (C, H, W).
        batch: images a call.
        threads: that compute a call.
        runtime: that runs the files.
        blocks: how many count for each file, three in a round.
        patience: seconds to wait for calm, all in all. What is disturbed after that counts, and is said to be.

    Raises:
        SlimsearchError: a file cannot be loaded.
    """
    images = np.random.default_rng(0).standard_normal((batch, *input_shape), dtype=np.float32)
    rounds = max(1, math.ceil(blocks / _BLOCKS_A_ROUND))
    timed = [_Timed() for _ in paths]
    collecting = gc.isenabled()
    gc.disable()  # a collection within a block would count as the network's
    try:
        with pinned(threads):
            reference = Reference(threads)
            until = time.monotonic() + patience
            while any(t.good(reference) < rounds for t in timed):
                impatient = time.monotonic() >= until
                if impatient and len(timed[0].rounds) >= rounds:
                    break
                models = [DeployedModel(path, threads, runtime) for path in paths]
                until = _round(models, images, timed, reference, until)
            reference.keep()
    finally:
        if collecting:
            gc.enable()
    return [t.latency(reference, rounds) for t in timed]


def _round(
    models: list[DeployedModel], images: Array, timed: list[_Timed], reference: Reference, until: float
) -> float:
    """Blocks of each model until each has enough calm ones; gives `until`, moved on by the time without trouble."""
    repeats = []
    for model in models:
        start, runs = time.perf_counter(), 0
        while runs < 3 or time.perf_counter() - start < _WARM_UP_SECONDS:
            model(images)
            runs += 1
        repeats.append(max(1, round(_BLOCK_SECONDS / ((time.perf_counter() - start) / runs))))
    for t in timed:
        t.rounds.append([])
    before = reference.time()
    for turn in itertools.count():
        lacking = [i for i, t in enumerate(timed) if t.calm(reference, -1) < _BLOCKS_A_ROUND]
        if not lacking or (turn >= _BLOCKS_A_ROUND and time.monotonic() >= until):
            return until
        for i in lacking:
            begun = time.monotonic()
            models[i](images)  # what other models have put into the caches is no part of it
            switches = preemptions()
            start = time.perf_counter()
            for _ in range(repeats[i]):
                models[i](images)
            took = (time.perf_counter() - start) / repeats[i]
            after = reference.time()
            beside = reference.beside(before, after, switches)
            timed[i].rounds[-1].append((took, beside))
            before = after
            if reference.calm(beside):
                until += time.monotonic() - begun  # patience is for what disturbs
            elif reference.wait(until):
                before = reference.time()
    raise AssertionError  # the count above does not end


def _interval(ordered: Sequence[float]) -> tuple[float, float]:
    """The interval of the median between two order statistics that holds it with at least 95%, or the whole range."""
    count = len(ordered)
    covered, skipped = 1 - 2 * 0.5**count, 0
    while skipped + 1 < count / 2:
        narrower = covered - 2 * math.comb(count, skipped + 1) * 0.5**count
        if narrower < _LEVEL:
            break
        covered, skipped = narrower, skipped + 1
    return ordered[skipped], ordered[count - 1 - skipped]
