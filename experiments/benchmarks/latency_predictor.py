"""Accuracy of the latency predictor on networks that it was not calibrated with.

    python experiments/benchmarks/latency_predictor.py --json latency_predictor.json --page docs/latency.md

Run it on a quiet machine. Networks are untrained. Measurements are stored in --out, so that an interrupted benchmark
continues. --devices are other runtimes on this machine that stand for boards: the program of boards measures them.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before NumPy is imported
        os.environ.setdefault(_name, "1")

import numpy as np
import torch
from scipy.stats import spearmanr

from experiments.benchmarks._output import add_output, check_output, stored, table, write_output
from slimsearch import compression
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.compression import Network, Quantization
from slimsearch.evaluators import LatencyPredictor, Meter, measure_latency, processor
from slimsearch.evaluators.latency.boards import PROGRAM, BoardConnection
from slimsearch.evaluators.latency.measurement import MeasurementSettings
from slimsearch.evaluators.latency.reference import Reference, pinned
from slimsearch.search_spaces import ModelSpace

SPACES = {"lenet": (1, 28, 28), "resnet_cifar": (3, 32, 32)}
FEW_FILES = {"mnist_cnn": (1, 28, 28)}
FORMS = ("fp32", "int8")
DEVICES = {"slowed": "onnxruntime", "unoptimized": "onnxruntime", "openvino": "openvino"}
"""Runtimes that stand for boards, see `_RUNTIMES`."""
# The slowed one takes longer for each convolution and matrix product, the unoptimized one neither fuses operators nor
# changes their layout.
_RUNTIMES = {
    "slowed": """
import time
import onnxruntime

class Slowed(onnxruntime.InferenceSession):
    def __init__(self, content, *arguments, **options):
        super().__init__(content, *arguments, **options)
        # Field 4 of a node: its operator.
        self.extra = 5e-6 * content.count(b"\\x22\\x04Conv") + 2e-6 * content.count(b"\\x22\\x04Gemm")

    def run(self, *arguments, **options):
        found = super().run(*arguments, **options)
        until = time.perf_counter() + self.extra
        while time.perf_counter() < until:
            pass
        return found

onnxruntime.InferenceSession = Slowed
""",
    "unoptimized": """
import onnxruntime

class Unoptimized(onnxruntime.InferenceSession):
    def __init__(self, content, options, **more):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        super().__init__(content, options, **more)

onnxruntime.InferenceSession = Unoptimized
""",
    "openvino": "",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; the exit code is 0, 2 for a mistake, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument(
        "--spaces", nargs="+", default=[*SPACES, *FEW_FILES], choices=[*SPACES, *FEW_FILES], help="spaces"
    )
    parser.add_argument("--forms", nargs="*", default=list(FORMS), choices=FORMS)
    installed = [name for name, runtime in DEVICES.items() if importlib.util.find_spec(runtime) is not None]
    parser.add_argument("--devices", nargs="*", default=installed, choices=DEVICES, help="other runtimes")
    parser.add_argument("--others", least=3, default=50, metavar="N", help="of --devices: networks for the comparison")
    parser.add_argument("--calibrate", least=1, default=10, metavar="N", help="networks for calibration")
    parser.add_argument("--networks", least=3, default=30, metavar="N", help="networks for the comparison")
    parser.add_argument("--blocks", least=1, default=40, metavar="N", help="blocks of a measurement")
    parser.add_argument("--out", type=Path, default=Path("runs") / "latency_predictor", help="folder of results")
    add_output(parser, page=True)
    return parser


def _run(options: argparse.Namespace) -> None:
    check_output(options)
    settings = {name: getattr(options, name) for name in ("calibrate", "networks", "blocks")}
    rows = [
        row
        for name in options.spaces
        for form in options.forms
        for row in stored(
            options.out / f"{name}-{form}" / "rows.json", settings, functools.partial(_rows_of, name, form, options)
        )
    ]
    settings["networks"] = options.others
    others = [
        row
        for name in options.spaces
        for device in options.devices
        if name in SPACES
        for row in stored(
            options.out / f"{name}-{device}" / "rows.json", settings, functools.partial(_there, name, device, options)
        )
    ]
    found = {
        "processor": processor()[0], "cores": os.cpu_count(), "calibrate": options.calibrate, "blocks": options.blocks,
        "networks": options.networks, "rows": rows, "devices": others,
    }  # fmt: skip
    made = tables(found)
    print("\n".join(made.values()))
    write_output(options, found, made)


def _rows_of(name: str, form: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    folder = options.out / f"{name}-{form}"
    folder.mkdir(parents=True, exist_ok=True)
    if name in FEW_FILES:
        return _leave_one_out(name, FEW_FILES[name], form, folder, options.blocks)
    return _rows(name, SPACES[name], form, folder, (0, options.calibrate), options.networks, options.blocks)


def _there(name: str, device: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Errors of predictions from this machine's operators for networks on another device.

    Without measured networks, only the times of the reference networks there are known. Networks come in random order,
    and one is measured if it differs from those before.
    """
    folder, files = options.out / f"{name}-{device}", options.out / f"{name}-fp32"
    for one in (folder, files):
        one.mkdir(parents=True, exist_ok=True)
    shape = SPACES[name]
    chosen = _alike_files(name, shape, "fp32", files, options.calibrate + options.others, options.blocks)
    (folder / "sitecustomize.py").write_text(_RUNTIMES[device], encoding="utf-8")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = PROGRAM.replace("p=python3", f'p="{sys.executable}"')
    connection = BoardConnection(["env", f"PYTHONPATH={path}", f"TMPDIR={folder}", "sh", "-c", command])
    try:
        patience = 2.0 * options.blocks
        settings = MeasurementSettings(
            shape, runtime=DEVICES[device], blocks=options.blocks, patience=patience, patience_beside_others=patience
        )
        contents = {path.name: path.read_bytes() for path in chosen}
        with Meter().exclusive():  # the lock of the measuring program is in its own folder
            there, _ = connection.reference_ms(1)
            latencies, again = (connection.measure(contents, settings)[0] for _ in range(2))
            with pinned(1):
                here = np.array(Reference(1).best) * 1000
    finally:
        connection.close()
    slowness = float(np.exp(np.log(there / here).mean()))
    measured, repeated = (np.array([latency.median_ms for latency in one]) for one in (latencies, again))
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        uncorrected, corrected = (LatencyPredictor(folder=Path(cache), slowness=slowness) for _ in range(2))
        calibration: list[int] = []
        for position, file in enumerate(chosen):
            if len(calibration) < options.calibrate and not corrected.is_sure(file):
                corrected.correct(file, float(measured[position]))
                calibration.append(position)
        others = np.setdiff1d(np.arange(len(chosen)), calibration)
        for predictor, pairs in ((uncorrected, 0), (corrected, len(calibration))):
            told = [predictor.predict(chosen[position]).ms for position in others]
            errors = _errors(told, measured[others])
            second = _errors(repeated[others], measured[others])
            rows.append({
                "space": name, "device": device, "calibrated": pairs, **errors,
                "repeated_spearman": second["spearman"], "repeated_error": second["median_error"],
            })  # fmt: skip
    return rows


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """The tables of the page, by name."""
    headings = (
        "", "measured before", "networks", "latency, ms", "rank correlation", "median error, %", "90th percentile, %",
        "operators measured", "guessed", "s for the predictor", "s to measure instead",
    )  # fmt: skip
    rows = [
        (
            f"`{row['space']}`, {row['form']}", str(row["calibrated"]), str(row["networks"]),
            f"{row['least_ms']:.3f} to {row['most_ms']:.3f}", f"{row['spearman']:.3f}",
            f"{100 * row['median_error']:.1f}", f"{100 * row['error_90']:.1f}", str(row["operators"]),
            str(row["guessed"]), f"{row['predictor_seconds']:.1f}", f"{row['measured_seconds']:.1f}",
        )
        for row in found["rows"]
    ]  # fmt: skip
    devices = [
        (
            f"`{row['space']}`, {row['device']}", str(row["calibrated"]), str(row["networks"]),
            f"{row['least_ms']:.3f} to {row['most_ms']:.3f}", f"{row['spearman']:.3f}",
            f"{100 * row['median_error']:.1f}", f"{100 * row['error_90']:.1f}",
            f"{row['repeated_spearman']:.3f}", f"{100 * row['repeated_error']:.1f}",
        )
        for row in found.get("devices", [])
    ]  # fmt: skip
    machine = f"{found['cores']} cores of {found['processor']}, one thread, one image a call.\n"
    return {
        "predictor_machine": machine,
        **({"predictor": table(headings, rows)} if rows else {}),
        **({"devices": table((*headings[:7], *_REPEATED), devices)} if devices else {}),
    }


_REPEATED = ("rank correlation of a second measurement", "its median difference, %")
# Compared networks are within this factor in latency: otherwise their order would be too easy to predict.
FACTOR = 4.0


def _rows(
    name: str,
    shape: tuple[int, int, int],
    form: str,
    folder: Path,
    calibrate: Sequence[int],
    held_out: int,
    blocks: int,
) -> list[dict[str, Any]]:
    """Errors for random networks of a space, after each number of corrections in `calibrate`.

    Args:
        name, shape: of the space and of one image.
        form: "fp32" or "int8".
        folder: of the files; exists.
        calibrate: numbers of measured latencies that correct the predictor.
        held_out: number of other networks, within a factor of four in latency.
        blocks: of a measurement.
    """  # fmt: skip
    chosen = _alike_files(name, shape, form, folder, max(calibrate) + held_out, blocks)
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


def _alike_files(
    name: str, shape: tuple[int, int, int], form: str, folder: Path, wanted: int, blocks: int
) -> list[Path]:
    """Files of random networks within a factor of four in latency."""
    files = _files(name, shape, form, folder, 2 * wanted)
    quick = [latency.median_ms for latency in measure_latency(files, shape, blocks=max(1, blocks // 10))]
    return [files[position] for position in _alike(quick)][:wanted]


def _leave_one_out(
    name: str, shape: tuple[int, int, int], form: str, folder: Path, blocks: int
) -> list[dict[str, Any]]:
    """Errors for a space with few distinct files: each is predicted after the others are measured."""
    space = ModelSpace.load(name, shape, 10)
    points: dict[str, Any] = {}
    for point in space.grid():  # dropout does not change a file
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
        # Untrained: latency depends on no weight.
        plan = Quantization("minmax", True, "any") if form == "int8" else None
        network = Network(space.build(point).eval(), quantization=plan)
        images = torch.randn(16, *space.input_shape, generator=torch.Generator().manual_seed(0))
        compression.export_onnx(network, path, images)
    return path


def _alike(latencies: Sequence[float]) -> list[int]:
    """Positions of the largest set within the factor, in order."""
    # Margin for the measurement with more blocks.
    windows = [[i for i, ms in enumerate(latencies) if low <= ms <= low * 0.9 * FACTOR] for low in latencies]
    return max(windows, key=len)


def _measured(files: Sequence[Path], shape: tuple[int, int, int], blocks: int) -> tuple[np.ndarray[Any, Any], float]:
    start = time.perf_counter()
    found = np.array([latency.median_ms for latency in measure_latency(files, shape, blocks=blocks)])
    return found, time.perf_counter() - start


def _errors(told: Sequence[float] | np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> dict[str, Any]:
    errors = np.abs(np.asarray(told) / truth - 1)
    return {
        "networks": len(truth), "spearman": float(spearmanr(told, truth).statistic),
        "median_error": float(np.median(errors)), "error_90": float(np.percentile(errors, 90)),
        "least_ms": float(truth.min()), "most_ms": float(truth.max()),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
