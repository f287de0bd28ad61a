"""Whether something else disturbs the machine, seen from fixed small networks that are timed again and again.

A network that is disturbed slows by another factor than the reference does, so nothing is ever scaled by it: it says
only which measurements are to be thrown away.
"""

from __future__ import annotations

import functools
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.evaluators.deployed.deployed_model import Array, _onnxruntime
from slimsearch.evaluators.latency.meter import user_folder
from slimsearch.files import write_json

TOLERANCE = 0.05
"""By how much the reference may exceed its best time while nothing disturbs."""

Taken = tuple[float, ...]
"""Seconds for a call of each reference network."""

_BLOCK_SECONDS = 0.0005
_TRIES = 12
_CALLS_TO_WARM_UP = 4
_KEPT_SECONDS = 3600.0
_MOST_KEPT = 50
_POLL_SECONDS = 0.01
_VERSION = 3


class Reference:
    """The reference networks on this thread.

    One computes on little memory, which whoever takes the core or its clock disturbs. The other reads four MiB of
    weights in each call, which whoever uses the memory disturbs, also from another core.

    What their best times are, is known from all measurements of the last hour on this machine: a measurement that is
    disturbed from beginning to end is then known to be so. It is forgotten after that, since a virtual machine may
    have moved or a processor been throttled.

    Args:
        threads: that compute them, as many as compute what is measured.
        folder: where the machine's best times are kept; by default one that all processes of the user share.
    """

    def __init__(self, threads: int, folder: Path | None = None) -> None:
        self._threads = threads
        self._file = (folder or user_folder()) / f"reference-{threads}.json"
        self._networks = [_Network(model, images, threads) for model, images in _models()]
        self._known = [taken for _, taken in self._entries()]
        self._times: list[Taken] = []
        for _ in range(_TRIES):
            self.time()

    def time(self) -> Taken:
        """A block of each, about a millisecond in all: the medians of their calls."""
        self._times.append(tuple(network.time() for network in self._networks))
        return self._times[-1]

    @property
    def best(self) -> Taken:
        """Seconds for a call of each while nothing disturbs: times that recur, not the ones luckiest."""
        return tuple(np.min([self._now(), *self._known], axis=0).tolist())

    def disturbance(self, taken: Taken) -> float:
        """By what share calls that took so long exceed the best ones, in the network where it is most."""
        return float((np.array(taken) / self.best).max()) - 1

    def calm(self, taken: Taken) -> bool:
        """Whether calls that took so long were not disturbed, as far as is known now."""
        return self.disturbance(taken) <= TOLERANCE

    def beside(self, before: Taken, after: Taken, switches: int) -> Taken:
        """What counts for a block: the longer times of those before and after it; without end, if it was preempted.

        Args:
            before, after: from `time`.
            switches: `preemptions` before the block. A reference as short as this one can pass between two time slices
                of whoever shares the core.
        """
        if preemptions() != switches:
            return (math.inf,) * len(before)
        return tuple(map(max, before, after))

    def wait(self, until: float) -> bool:
        """Wait for calm on one of the cores that may be used, and move there; False: the time `until` has come.

        Args:
            until: of `time.monotonic`.
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

    def keep(self) -> None:
        """Tell later measurements what the best times were."""
        entries = [*self._entries(), (time.time(), self._now())]
        write_json(self._file, {"version": _VERSION, "times": entries[-_MOST_KEPT:]})

    def _now(self) -> Taken:
        return tuple(np.quantile(self._times, 0.1, axis=0).tolist())

    def _entries(self) -> list[tuple[float, Taken]]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            entries = [(float(when), tuple(map(float, taken))) for when, taken in found["times"]]
        except (OSError, ValueError, TypeError, KeyError):
            return []  # not there yet, or damaged: it is written anew
        if found.get("version") != _VERSION:
            return []
        now = time.time()
        return [
            (when, taken)
            for when, taken in entries
            if 0 <= now - when <= _KEPT_SECONDS and len(taken) == len(self._networks) and min(taken) > 0
        ]


class _Network:
    def __init__(self, model: bytes, images: Array, threads: int) -> None:
        self._run, self._images = _onnxruntime(model, threads), images
        start, runs = time.perf_counter(), 0
        while runs < _CALLS_TO_WARM_UP or time.perf_counter() - start < 0.003:
            self._run(images)
            runs += 1
        self._repeats = max(5, round(_BLOCK_SECONDS / ((time.perf_counter() - start) / runs)))

    def time(self) -> float:
        for _ in range(_CALLS_TO_WARM_UP):  # what was measured before has its own data in the caches
            self._run(self._images)
        times = []
        for _ in range(self._repeats):
            start = time.perf_counter()
            self._run(self._images)
            times.append(time.perf_counter() - start)
        return float(np.median(times))


def preemptions() -> int:
    """How often this thread had to leave its core to another one; 0 where the system does not tell."""
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
    except (ImportError, AttributeError):
        return 0


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this thread, and those that it starts, to `threads` of the cores that it may use."""
    before = _allowed()
    if len(before) > threads:
        _move_to(set(before[-threads:]))
    try:
        yield
    finally:
        _move_to(set(before))


@functools.cache
def _allowed() -> tuple[int, ...]:
    """The process's cores, before a thread of it was pinned."""
    return tuple(sorted(os.sched_getaffinity(os.getpid()))) if hasattr(os, "sched_getaffinity") else ()


def _move_to(cores: set[int]) -> None:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # 0: the calling thread, not the process


@functools.cache
def _models() -> tuple[tuple[bytes, Array], ...]:
    """Two convolutions and a product on 12x12 pixels; a product with a matrix of 1024x1024. Weights are drawn."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)

    def drawn(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32) * 0.1, name)

    def made(nodes: list[Any], weights: list[Any], inputs: list[int], outputs: list[int]) -> tuple[bytes, Array]:
        graph = helper.make_graph(
            nodes, "reference", [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs)], weights,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return bytes(model.SerializeToString()), rng.standard_normal(inputs, dtype=np.float32)

    computes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=16),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "w3"], ["y"]),
    ]
    weights = [drawn("w1", 16, 16, 3, 3), drawn("w2", 16, 1, 3, 3), drawn("w3", 16 * 12 * 12, 16)]
    reads = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return (
        made(computes, weights, [1, 16, 12, 12], [1, 16]),
        made(reads, [drawn("w", 1024, 1024)], [1, 1024], [1, 1024]),
    )
