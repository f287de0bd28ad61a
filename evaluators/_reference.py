"""Whether something else disturbs the machine, seen from a fixed small network that is timed again and again.

A network that is disturbed slows by another factor than the reference does, so nothing is ever scaled by it: it says
only which measurements are to be thrown away.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from evaluators._deployed import _onnxruntime
from evaluators._meter import user_folder

TOLERANCE = 0.05
"""By how much the reference may exceed its best time while nothing disturbs."""

_BLOCK_SECONDS = 0.001
_TRIES = 12
_KEPT_SECONDS = 3600.0
_POLL_SECONDS = 0.01


class Reference:
    """The reference network on this thread.

    What its best time is, is known from all measurements of the last hour on this machine: a measurement that is
    disturbed from beginning to end is then known to be so. It is forgotten after that, since a virtual machine may
    have moved or a processor been throttled.

    Args:
        threads: that compute it, as many as compute what is measured.
        folder: where the machine's best times are kept; by default one that all processes of the user share.
    """

    def __init__(self, threads: int, folder: Path | None = None) -> None:
        self._threads = threads
        self._file = (folder or user_folder()) / f"reference-{threads}.json"
        self._model = _onnxruntime(_network(), threads)
        self._images = np.random.default_rng(0).standard_normal((1, 16, 12, 12), dtype=np.float32)
        start, runs = time.perf_counter(), 0
        while time.perf_counter() - start < 0.02:
            self._model(self._images)
            runs += 1
        self._repeats = max(1, round(_BLOCK_SECONDS / ((time.perf_counter() - start) / runs)))
        self._known = self._recent()
        self._times: list[float] = []
        for _ in range(_TRIES):
            self.time()

    def time(self) -> float:
        """One block of it, about a millisecond: seconds for a call."""
        start = time.perf_counter()
        for _ in range(self._repeats):
            self._model(self._images)
        took = (time.perf_counter() - start) / self._repeats
        self._times.append(took)
        return took

    @property
    def best(self) -> float:
        """Seconds for a call while nothing disturbs: a time that recurs, not the one luckiest."""
        now = float(np.quantile(self._times, 0.1))
        return min([now, *self._known])

    def calm(self, took: float) -> bool:
        """Whether a call that took so long was not disturbed, as far as is known now."""
        return took <= self.best * (1 + TOLERANCE)

    def wait(self, until: float) -> bool:
        """Wait for calm on one of the cores that may be used, and move there; False: the time `until` has come.

        Args:
            until: of `time.monotonic`.
        """
        cores = _cores()
        while time.monotonic() < until:
            if self._threads == 1 and len(cores) > 1:
                for core in cores:
                    _move_to({core})
                    if self.calm(min(self.time(), self.time())):
                        return True
            elif self.calm(self.time()):
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def keep(self) -> None:
        """Tell later measurements what the best time was."""
        now = time.time()
        times = [*self._entries(), [now, float(np.quantile(self._times, 0.1))]]
        part = self._file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"network": _VERSION, "times": times[-50:]}), encoding="utf-8")
        part.replace(self._file)

    def _recent(self) -> list[float]:
        return [seconds for _, seconds in self._entries()]

    def _entries(self) -> list[list[float]]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            entries = [[float(when), float(seconds)] for when, seconds in found["times"]]
        except (OSError, ValueError, TypeError, KeyError):
            return []  # not there yet, or damaged: it is written anew
        now = time.time()
        if found.get("network") != _VERSION:
            return []
        return [entry for entry in entries if 0 <= now - entry[0] <= _KEPT_SECONDS and entry[1] > 0]


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this thread, and those that it starts, to `threads` of the cores that it may use."""
    before = _cores()
    if len(before) > threads:
        _move_to(set(before[-threads:]))
    try:
        yield
    finally:
        _move_to(set(before))


def _cores() -> list[int]:
    return list(_allowed())


@functools.cache
def _allowed() -> tuple[int, ...]:
    """The process's cores, before a thread of it was pinned."""
    return tuple(sorted(os.sched_getaffinity(os.getpid()))) if hasattr(os, "sched_getaffinity") else ()


def _move_to(cores: set[int]) -> None:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # 0: the calling thread, not the process


_VERSION = 1


@functools.cache
def _network() -> bytes:
    """A convolution, a depthwise one and a matrix product, about 30 microseconds a call, with drawn weights."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32) * 0.1, name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=16),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "w3"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "reference",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [weights("w1", 16, 16, 3, 3), weights("w2", 16, 1, 3, 3), weights("w3", 16 * 12 * 12, 64)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
