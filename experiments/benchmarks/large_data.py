"""Memory and time of a search on more images than are held in memory, beside the same search on few.

    python experiments/benchmarks/large_data.py --images 20000 --json large_data.json

JPEG files of 224x224 pixels are generated in a temporary folder, which has the cache and the runs too and is removed.
The network is small and an epoch has 256 images, so that the memory is that of reading. A run of two trials is resumed
for a third. Memory is the sum over the driver and its workers of what each holds alone and its share of what they hold
together (PSS), at its peak.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

import numpy as np
import psutil

from experiments.benchmarks._output import add_output, check_output, console, table, write_output
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.errors import SlimsearchError

FEW, SIDE, CLASSES = 200, 224, 4
_MIB = 2**20
_PERIOD = 0.3  # seconds between two looks at the memory
_HEADINGS = {
    "images": "images", "pixels_mib": "pixels, MiB", "reading_seconds": "first reading, s",
    "reading_peak_mib": "its peak memory, MiB", "run_seconds": "run of two trials, s",
    "run_peak_mib": "peak memory, MiB", "resume_seconds": "resumed for a third, s",
    "resume_peak_mib": "peak memory, MiB ",
}  # fmt: skip
_SPACE = """
from torch import nn


def define(trial, in_channels, num_classes):
    width = trial.suggest_categorical("width", [4, 6, 8, 12])
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 8, stride=8), nn.ReLU(), nn.Conv2d(width, 16, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )
"""


def main() -> None:
    parser = CommandParser("Memory and time of a search on many images.")
    parser.add_argument("--images", type=int, default=20_000, help="number of images")
    add_output(parser, page=True)
    options = parser.parse_args()
    check_output(options)
    with tempfile.TemporaryDirectory(prefix="large-data-") as folder:
        rows = [measured(Path(folder), count) for count in (FEW, options.images)]
    cells = [[f"{row[name]:,.0f}" for name in _HEADINGS] for row in rows]
    shown = table(list(_HEADINGS.values()), cells)
    write_output(options, {"rows": rows, "side": SIDE}, {"large_data": shown})
    console().print(shown, markup=False)


def measured(folder: Path, count: int) -> dict[str, Any]:
    """Memory and seconds of a run on `count` images, and of its resumption."""
    images = folder / f"images-{count}"
    generate(images, count)
    (folder / "space.py").write_text(_SPACE)
    run = folder / f"run-{count}"
    options = (
        "--dataset", str(images), "--epochs", "1", "--epoch-images", "256", "--batch-size", "16", "--workers", "1",
        "--compress", "none", "--latency", "measured", "--top-k", "1", "--run-dir", str(run),
    )  # fmt: skip
    environment = {"SLIMSEARCH_CACHE": str(folder / "cache")}
    read, reading = watched([sys.executable, "-c", _READ, str(images)], environment)
    command = [sys.executable, "experiments/run.py"]
    first, peak = watched([*command, "--space", f"{folder}/space.py:define", "--trials", "2", *options], environment)
    again, resumed = watched([*command, "--resume", str(run), "--trials", "3"], environment)
    return {
        "images": count, "pixels_mib": count * 3 * SIDE**2 / _MIB, "reading_seconds": read, "reading_peak_mib": reading,
        "run_seconds": first, "run_peak_mib": peak, "resume_seconds": again, "resume_peak_mib": resumed,
    }  # fmt: skip


_READ = "import sys, slimsearch; slimsearch.load_dataset(sys.argv[1]).fingerprint"


def generate(folder: Path, count: int) -> None:
    """Write images: noise of few pixels, enlarged, of another brightness for each class."""
    from PIL import Image

    for number in range(count):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 150 + 30 * (number % CLASSES), (14, 14, 3), dtype=np.uint8)
        file = folder / f"class{number % CLASSES}" / f"{number:06}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, quality=85)


def watched(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds of a command, and the peak memory of its processes in MiB.

    Raises:
        SlimsearchError: the command fails.
    """
    root = Path(__file__).resolve().parents[2]
    start, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=root, env={**os.environ, "PYTHONPATH": str(root / "src"), **environment}, stdout=output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        watcher = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, _memory(watcher))
            time.sleep(_PERIOD)
        output.seek(0)
        said = output.read().strip().splitlines()
    if process.returncode != 0:
        raise SlimsearchError(f"{' '.join(command)}: {said[-1] if said else 'failed'}")
    return time.perf_counter() - start, peak / _MIB


def _memory(process: psutil.Process) -> int:
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
        for one in (process, *process.children(recursive=True)):
            total += one.memory_full_info().pss
    return total


if __name__ == "__main__":
    sys.exit(exit_code(main))
