"""Calibration of activation ranges by entropy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_BINS = 2048  # of the absolute values
_STEP = 8  # bins between two candidates for the range
_CLAMPS = ("Clip", "Relu")


def entropy_ranges(prepared: Path, batches: Iterator[dict[str, Array]]) -> dict[str, tuple[float, float]]:
    """The smallest and largest represented value of each activation of an ONNX file, by name.

    The histograms are ONNX Runtime's. Its own search is not used: with its default of 128 bins it has a single
    candidate, the extremes, and it takes seconds for a tensor with more of them.
    """
    import numpy as np
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Array] | None:
            return next(batches, None)

    calibrator = create_calibrator(
        str(prepared), [], str(prepared.with_name("augmented.onnx")), CalibrationMethod.Entropy,
        extra_options={"num_bins": 2 * _BINS},
    )  # fmt: skip
    calibrator.collect_data(Reader())
    found = {}
    for name, (counts, _, least, most, bound) in calibrator.collector.get_histogram_dict().items():
        positive = least >= 0
        half = len(counts) // 2
        magnitudes = counts[half:] + (0 if positive else counts[:half][::-1])
        largest = float(bound) * best_bins(magnitudes.astype(np.float64), 256 if positive else 128) / half
        found[name] = (max(float(least), -largest), min(float(most), largest))
    graph = onnx.load(str(prepared)).graph
    readers = [name for node in graph.node for name in node.input]
    for node in graph.node:
        # The operator becomes part of the integers' range, if its input has the range of its output.
        if node.op_type in _CLAMPS and node.output[0] in found and readers.count(node.input[0]) == 1:
            found[node.input[0]] = found[node.output[0]]
    return found


def best_bins(counts: Array, levels: int) -> int:
    """Number of bins within the range whose quantized distribution loses the least information.

    Source: Migacz 2017, "8-bit inference with TensorRT". For each candidate, P is the distribution within the range,
    with all larger values in its last bin, and Q what is left of it with `levels` equal steps: the mean of the bins of
    a step, in those that are not empty. The one with the smallest Kullback-Leibler divergence of Q from P is best.
    Difference: the steps have equal widths also where their number does not divide that of the bins.

    Args:
        counts: of absolute values, (bins,).
        levels: number of steps.
    """
    import numpy as np

    total = float(counts.sum())
    best, least = len(counts), np.inf
    for bins in range(len(counts), levels - 1, -_STEP):
        inside = counts[:bins]
        p = inside.copy()
        p[-1] += total - inside.sum()
        step = np.arange(bins) * levels // bins
        filled = p > 0
        means = np.bincount(step, inside, levels) / np.maximum(np.bincount(step, filled, levels), 1)
        p, q = p[filled], means[step][filled]
        if q.all():
            divergence = float((p * np.log(p * q.sum() / (q * total))).sum() / total)
            if divergence < least:
                best, least = bins, divergence
    return best
