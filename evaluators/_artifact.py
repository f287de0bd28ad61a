"""The exported file as its user runs it: answers and latency in ONNX Runtime, and its size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compression import read_onnx
from evaluators.datasets import Dataset, Split
from slimsearch_errors import SlimsearchError

Array = np.ndarray[Any, np.dtype[Any]]

_WARM_UP_SECONDS = 0.05
_BLOCK_SECONDS = 0.005


class DeployedModel:
    """An ONNX file loaded from disk into ONNX Runtime, on the CPU.

    Raises:
        SlimsearchError: the file cannot be loaded.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin between calls would disturb whatever runs beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads == 1 else "1")
        options.add_session_config_entry("session.load_model_format", "ONNX")
        content = read_onnx(path)
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception for every reason
            raise SlimsearchError(f"ONNX Runtime cannot load '{path}': {str(error).partition(chr(10))[0]}") from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: Array) -> Array:
        """(N, C, H, W) float32, normalised -> (N, num_classes) logits."""
        return self._session.run(None, {self._input: images})[0]  # type: ignore[no-any-return]

    def predict(self, data: Dataset, split: Split) -> Array:
        """Class of each image of `split`, (N,) int64."""
        found = [self(images.numpy()).argmax(axis=1) for images, _ in data.batches(split)]
        return np.concatenate(found).astype(np.int64)


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one batch: median and quartiles over blocks of repeated runs."""

    median_ms: float
    q25_ms: float
    q75_ms: float

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """As named numbers."""
        return {
            f"{prefix}latency_ms": self.median_ms,
            f"{prefix}latency_q25_ms": self.q25_ms,
            f"{prefix}latency_q75_ms": self.q75_ms,
        }


def measure_latency(
    paths: Sequence[Path],
    input_shape: tuple[int, int, int],
    *,
    batch: int = 1,
    threads: int = 1,
    blocks: int = 40,
) -> list[Latency]:
    """Latency of each file, in blocks that take turns, so that a drift of the machine meets all of them.

    Call it while nothing else computes (`Meter.exclusive`). Each file is warmed up first; a block repeats the
    run for at least 5 ms and counts with its mean.
    """
    images = np.random.default_rng(0).standard_normal((batch, *input_shape), dtype=np.float32)
    models = [DeployedModel(path, threads) for path in paths]
    repeats = []
    for model in models:
        start, runs = time.perf_counter(), 0
        while runs < 3 or time.perf_counter() - start < _WARM_UP_SECONDS:
            model(images)
            runs += 1
        repeats.append(max(1, round(_BLOCK_SECONDS / ((time.perf_counter() - start) / runs))))
    means: list[list[float]] = [[] for _ in models]
    for _ in range(blocks):
        for position, model in enumerate(models):
            start = time.perf_counter()
            for _ in range(repeats[position]):
                model(images)
            means[position].append((time.perf_counter() - start) / repeats[position] * 1000)
    quartiles = [np.percentile(row, [50, 25, 75]) for row in means]
    return [Latency(float(median), float(q25), float(q75)) for median, q25, q75 in quartiles]


def size_kib(path: Path) -> float:
    """Size of the file in KiB."""
    return path.stat().st_size / 1024
