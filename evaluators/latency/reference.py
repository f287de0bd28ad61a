"""Reference networks, timed between measurements to detect disturbances by other processes.

A disturbance slows the measured network by another factor than the reference, so latencies are never scaled by it; it
only decides which measurements are discarded. Boards run this module too, with models that they are sent.
"""

from __future__ import annotations

import bisect
import functools
import json
import math
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.compression.export.untrusted import onnxruntime_session
from slimsearch.files import write_json
from slimsearch.temporary import user_folder

TOLERANCE = 0.05
"""Relative excess over the best time of the reference up to which a measurement counts as undisturbed."""

CallTimes = tuple[float, ...]
"""Seconds per call of each reference network."""

ReferenceModels = tuple[tuple[bytes, tuple[int, ...]], ...]
"""Serialized models of the reference networks, and the shapes of their inputs."""

_BLOCK_SECONDS = 0.0005
_FIRST_TIMES = 12
_LOW = 0.1
_WARM_UP_CALLS = 4
_STORED_SECONDS = 3600.0
_MAX_STORED = 50
_POLL_SECONDS = 0.01
_VERSION = 3


class Reference:
    """Two reference networks, run on this thread.

    One computes on little memory: processes that share its core or clock slow it down. The other reads 4 MiB of weights
    per call: processes that use the memory slow it down, also from other cores.

    Their best times come from all measurements of the last hour on this machine, so that a measurement that is
    disturbed from start to end is detected. Older times are dropped: the virtual machine may have moved, or the
    processor may be throttled.

    Args:
        threads: per call, as for the measured network.
        folder: of the stored best times; by default the user's folder on this machine.
        models: of the networks; by default `reference_models`.
    """

    def __init__(self, threads: int, folder: Path | None = None, models: ReferenceModels | None = None) -> None:
        self._threads = threads
        self._file = (folder or user_folder()) / f"reference-{threads}.json"
        self._networks = [_Network(model, shape, threads) for model, shape in models or reference_models()]
        # Boards may have Python 3.9, whose zip takes no `strict`.
        self._stored = [min(times) for times in zip(*(times for _, times in self._entries()))]  # noqa: B905
        # All times of each network, sorted: their quantile is needed for every block.
        self._ascending: list[list[float]] = [[] for _ in self._networks]
        for _ in range(_FIRST_TIMES):
            self.time()

    def time(self) -> CallTimes:
        """Time a block of calls of each network, about a millisecond in all; returns the medians."""
        times = tuple(network.time() for network in self._networks)
        for number, seconds in enumerate(times):
            bisect.insort(self._ascending[number], seconds)
        return times

    @property
    def best(self) -> CallTimes:
        """Seconds per undisturbed call of each: a low quantile, not the minimum, which is luck."""
        now = self._now()
        return tuple(map(min, now, self._stored)) if self._stored else now

    def disturbance(self, times: CallTimes) -> float:
        """Relative excess of `times` over the best times, the larger of both networks."""
        best = self.best
        return max(seconds / best[number] for number, seconds in enumerate(times)) - 1

    def calm(self, times: CallTimes) -> bool:
        """Whether `times` were undisturbed, as far as the best times are known."""
        return self.disturbance(times) <= TOLERANCE

    def around(self, before: CallTimes, after: CallTimes, switches: int) -> CallTimes:
        """Times of the reference for a block: the larger of those before and after it; infinite if it was preempted.

        Args:
            before, after: from `time`.
            switches: `preemptions` before the block. The reference is short enough to run between two time slices of
                another process on the same core.
        """
        if preemptions() != switches:
            return (math.inf,) * len(before)
        return tuple(map(max, before, after))

    def wait(self, until: float) -> bool:
        """Wait until one of the allowed cores is calm, and move there; False if none was by `until`.

        Args:
            until: a time of `time.monotonic`.
        """
        cores = _allowed()
        while time.monotonic() < until:
            if self._threads == 1 and len(cores) > 1:
                for core in cores:
                    _move_to({core})
                    self.time()
                    if self.calm(self.time()):
                        return True
            elif self.calm(self.time()):
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def store(self) -> None:
        """Store the best times for later measurements."""
        entries = [*self._entries(), (time.time(), self._now())]
        write_json(self._file, {"version": _VERSION, "times": entries[-_MAX_STORED:]})

    def _now(self) -> CallTimes:
        return tuple(_low_quantile(ascending) for ascending in self._ascending)

    def _entries(self) -> list[tuple[float, CallTimes]]:
        try:
            stored = json.loads(self._file.read_text(encoding="utf-8"))
            entries = [(float(when), tuple(map(float, times))) for when, times in stored["times"]]
        except (OSError, ValueError, TypeError, KeyError):
            return []  # missing or damaged: written again later
        if stored.get("version") != _VERSION:
            return []
        now = time.time()
        return [
            (when, times)
            for when, times in entries
            if 0 <= now - when <= _STORED_SECONDS and len(times) == len(self._networks) and min(times) > 0
        ]


class _Network:
    def __init__(self, model: bytes, shape: tuple[int, ...], threads: int) -> None:
        self._run = onnxruntime_session(model, threads)
        self._images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        images = self._images
        start, runs = time.perf_counter(), 0
        while runs < _WARM_UP_CALLS or time.perf_counter() - start < 0.003:
            self._run(images)
            runs += 1
        self._repeats = max(5, round(_BLOCK_SECONDS / ((time.perf_counter() - start) / runs)))

    def time(self) -> float:
        for _ in range(_WARM_UP_CALLS):  # the caches hold the data of the measured network
            self._run(self._images)
        times = []
        for _ in range(self._repeats):
            start = time.perf_counter()
            self._run(self._images)
            times.append(time.perf_counter() - start)
        return statistics.median(times)


def _low_quantile(ascending: Sequence[float]) -> float:
    """The 10% quantile, between the two nearest of the numbers."""
    below, share = divmod(_LOW * (len(ascending) - 1), 1)
    first, second = ascending[int(below)], ascending[min(int(below) + 1, len(ascending) - 1)]
    return first + share * (second - first)


def preemptions() -> int:
    """Number of involuntary context switches of this thread; 0 if the system does not count them."""
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
    except (ImportError, AttributeError):
        return 0


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Pin this thread, and those that it starts, to `threads` of its allowed cores."""
    before = _allowed()
    if len(before) > threads:
        _move_to(set(before[-threads:]))
    try:
        yield
    finally:
        _move_to(set(before))


@functools.cache
def _allowed() -> tuple[int, ...]:
    """Cores that the process may use, read before any thread is pinned."""
    return tuple(sorted(os.sched_getaffinity(os.getpid()))) if hasattr(os, "sched_getaffinity") else ()


def _move_to(cores: set[int]) -> None:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # 0: the calling thread, not the process


@functools.cache
def reference_models() -> ReferenceModels:
    """Two convolutions and a matrix product on 12x12 pixels; a product with a 1024x1024 matrix. Random weights."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)

    def random(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32) * 0.1, name)

    def model(
        nodes: list[Any], weights: list[Any], inputs: tuple[int, ...], outputs: tuple[int, ...]
    ) -> tuple[bytes, tuple[int, ...]]:
        graph = helper.make_graph(
            nodes, "reference", [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs)], weights,
        )  # fmt: skip
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return bytes(proto.SerializeToString()), inputs

    computes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=16),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "w3"], ["y"]),
    ]
    weights = [random("w1", 16, 16, 3, 3), random("w2", 16, 1, 3, 3), random("w3", 16 * 12 * 12, 16)]
    reads = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return (
        model(computes, weights, (1, 16, 12, 12), (1, 16)),
        model(reads, [random("w", 1024, 1024)], (1, 1024), (1, 1024)),
    )
