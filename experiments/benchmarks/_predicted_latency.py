"""Networks of a space as exported files, what is foretold of them, and what is measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from slimsearch import compression
from slimsearch.compression import Network, Quantization
from slimsearch.evaluators import LatencyPredictor, measure_latency
from slimsearch.search_spaces import ModelSpace

# Networks that are compared are within this factor in latency, or to order them would be too easy.
FACTOR = 4.0


def rows(
    name: str,
    shape: tuple[int, int, int],
    form: str,
    folder: Path,
    calibrate: Sequence[int],
    held_out: int,
    blocks: int,
) -> list[dict[str, Any]]:
    """Errors for networks of a space, drawn at random, after each number of corrections in `calibrate`.

    Args:
        name, shape: of the space and one image of it.
        form: "fp32" or "int8".
        folder: where files are kept; exists.
        calibrate: how many measured latencies the predictor is told.
        held_out: how many others it is tried on, within a factor of four in latency.
        blocks: of the measurement.
    """  # fmt: skip
    wanted = max(calibrate) + held_out
    files = _files(name, shape, form, folder, 2 * wanted)
    quick = [latency.median_ms for latency in measure_latency(files, shape, blocks=max(1, blocks // 10))]
    chosen = [files[position] for position in _alike(quick)][:wanted]
    measured, seconds = _measured(chosen, shape, blocks)
    calibration, others = chosen[: max(calibrate)], chosen[max(calibrate) :]
    truth = measured[len(calibration) :]
    found = []
    for pairs in calibrate:
        with tempfile.TemporaryDirectory() as cache:
            predictor = LatencyPredictor(folder=Path(cache))
            for path, ms in zip(calibration[:pairs], measured, strict=False):
                predictor.correct(path, float(ms))
            start = time.perf_counter()
            told = [predictor.predict(path) for path in others]
            spent = time.perf_counter() - start
        found.append({
            "space": name, "form": form, "calibrated": pairs, **_errors([one.ms for one in told], truth),
            "operators": sum(one.measured_operators for one in told),
            "guessed": sum(one.guessed_operators for one in told),
            "predictor_seconds": spent, "measured_seconds": seconds * len(others) / len(chosen),
        })  # fmt: skip
    return found


def each_from_the_others(
    name: str, shape: tuple[int, int, int], form: str, folder: Path, blocks: int
) -> list[dict[str, Any]]:
    """The same for a space with few files that differ: each is foretold after the others have been measured."""
    space = ModelSpace.load(name, shape, 10)
    points: dict[str, Any] = {}
    for point in space.grid():  # dropout is no part of a file
        points.setdefault(str({label: value for label, value in point.items() if label != "dropout"}), point)
    files = [_file(space, point, form, folder / f"{i}.onnx") for i, point in enumerate(points.values())]
    measured, seconds = _measured(files, shape, blocks)
    with tempfile.TemporaryDirectory() as cache:
        told, operators, guessed, spent = [], 0, 0, 0.0
        for position, path in enumerate(files):
            predictor = LatencyPredictor(folder=Path(cache))
            start = time.perf_counter()
            for other, ms in zip(files, measured, strict=True):
                one = predictor.predict(other)
                operators += one.measured_operators
                guessed += one.guessed_operators if position == 0 else 0
                if other != path:
                    predictor.correct(other, float(ms))
            told.append(predictor.predict(path).ms)
            spent += time.perf_counter() - start
    return [{
        "space": name, "form": form, "calibrated": len(files) - 1, **_errors(told, measured), "operators": operators,
        "guessed": guessed, "predictor_seconds": spent, "measured_seconds": seconds,
    }]  # fmt: skip


def _files(name: str, shape: tuple[int, int, int], form: str, folder: Path, count: int) -> list[Path]:
    space, rng = ModelSpace.load(name, shape, 10), np.random.default_rng(0)
    points: dict[str, Any] = {}
    while len(points) < count:
        point = space.sample(rng)
        points[space.candidate(point).key] = point
    return [_file(space, point, form, folder / f"{i}.onnx") for i, point in enumerate(points.values())]


def _file(space: ModelSpace, point: Any, form: str, path: Path) -> Path:
    if not path.is_file():
        # Untrained: latency depends on no weight's value.
        plan = Quantization("minmax", True, "any") if form == "int8" else None
        network = Network(space.build(point).eval(), quantization=plan)
        images = torch.randn(16, *space.input_shape, generator=torch.Generator().manual_seed(0))
        compression.export_onnx(network, path, images)
    return path


def _alike(latencies: Sequence[float]) -> list[int]:
    """Positions of the most that are within the factor, in their order."""
    # A measurement with more blocks may give a little more or less.
    windows = [[i for i, ms in enumerate(latencies) if low <= ms <= low * 0.9 * FACTOR] for low in latencies]
    return max(windows, key=len)


def _measured(files: Sequence[Path], shape: tuple[int, int, int], blocks: int) -> tuple[np.ndarray[Any, Any], float]:
    start = time.perf_counter()
    found = np.array([latency.median_ms for latency in measure_latency(files, shape, blocks=blocks)])
    return found, time.perf_counter() - start


def _errors(told: Sequence[float], truth: np.ndarray[Any, Any]) -> dict[str, Any]:
    errors = np.abs(np.asarray(told) / truth - 1)
    return {
        "networks": len(truth), "spearman": float(spearmanr(told, truth).statistic),
        "median_error": float(np.median(errors)), "error_90": float(np.percentile(errors, 90)),
        "least_ms": float(truth.min()), "most_ms": float(truth.max()),
    }  # fmt: skip
