"""Memory and time of searches on data that is not held in memory, beside the same searches on little of it.

    python experiments/benchmarks/large_data.py --json large_data.json --page docs/benchmarks.md

Images (JPEG files of 224x224 pixels), signals of 8x1024 numbers (an .npy file, and a compressed .npz file) and a CSV
table of 40 columns are generated in a temporary folder, which has the cache and the runs too and is removed. The
networks are small and an epoch has 256 examples, so that the memory is that of reading. A run of two trials is resumed
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
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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

SIDE, CLASSES, CHANNELS, LENGTH, COLUMNS = 224, 4, 8, 1024, 40
_BLOCK = 1024  # examples that are generated at a time
_MIB = 2**20
_PERIOD = 0.3  # seconds between two looks at the memory
_HEADINGS = {
    "data": "data", "examples": "examples", "mib": "MiB", "reading_seconds": "first reading, s",
    "reading_peak_mib": "its peak memory, MiB", "run_seconds": "run of two trials, s",
    "run_peak_mib": "peak memory, MiB", "resume_seconds": "resumed for a third, s",
    "resume_peak_mib": "peak memory, MiB ",
}  # fmt: skip
_SPACES = """
from torch import nn


def images(trial, in_channels, num_classes):
    width = trial.suggest_categorical("width", [4, 6, 8, 12])
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 8, stride=8), nn.ReLU(), nn.Conv2d(width, 16, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )


def signals(trial, in_channels, num_classes):
    width = trial.suggest_categorical("width", [4, 6, 8, 12])
    return nn.Sequential(
        nn.Conv1d(in_channels, width, 16, stride=16), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(width, num_classes),
    )


def table(trial, in_channels, num_classes):
    width = trial.suggest_categorical("width", [4, 6, 8, 12])
    return nn.Sequential(nn.Linear(in_channels, width), nn.ReLU(), nn.Linear(width, num_classes))
"""


@dataclass(frozen=True)
class Source:
    """A kind of data set.

    Attributes:
        space: function of `_SPACES`.
        generate: writes some examples below a folder; gives what ``--dataset`` takes.
        few, many: numbers of examples.
        mib: of an example, as it is stored, or as it is in the file if that is a text.
        options: of the run.
    """

    space: str
    generate: Callable[[Path, int], Path]
    few: int
    many: int
    mib: float
    options: tuple[str, ...] = ()


def main() -> None:
    parser = CommandParser("Memory and time of searches on large data.")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the examples of the large data sets")
    parser.add_argument("--only", metavar="NAMES", help=f"some of {', '.join(SOURCES)}, with commas")
    add_output(parser, page=True)
    options = parser.parse_args()
    check_output(options)
    chosen = options.only.split(",") if options.only else list(SOURCES)
    if unknown := set(chosen) - set(SOURCES):
        raise SlimsearchError(f"--only {', '.join(sorted(unknown))} is none of {', '.join(SOURCES)}")
    rows = []
    for name in chosen:
        source = SOURCES[name]
        for count in (source.few, max(source.few, round(options.scale * source.many))):
            with tempfile.TemporaryDirectory(prefix="large-data-") as folder:
                rows.append(measured(name, source, Path(folder), count))
    cells = [[row["data"], *(f"{row[name]:,.0f}" for name in list(_HEADINGS)[1:])] for row in rows]
    shown = table(list(_HEADINGS.values()), cells)
    write_output(options, {"rows": rows}, {"large_data": shown})
    console().print(shown, markup=False)


def measured(name: str, source: Source, folder: Path, count: int) -> dict[str, Any]:
    """Memory and seconds of a run on `count` examples, and of its resumption."""
    data = source.generate(folder, count)
    (folder / "spaces.py").write_text(_SPACES)
    run = folder / "run"
    options = (
        "--dataset", str(data), "--epochs", "1", "--epoch-images", "256", "--batch-size", "16", "--workers", "1",
        "--compress", "none", "--latency", "measured", "--top-k", "1", "--run-dir", str(run), *source.options,
    )  # fmt: skip
    environment = {"SLIMSEARCH_CACHE": str(folder / "cache")}
    target = dict(zip(source.options[::2], source.options[1::2], strict=True)).get("--target-column", "")
    read, reading = watched([sys.executable, "-c", _READ, str(data), target], environment)
    command = [sys.executable, "experiments/run.py"]
    space = ("--space", f"{folder}/spaces.py:{source.space}")
    first, peak = watched([*command, *space, "--trials", "2", *options], environment)
    again, resumed = watched([*command, "--resume", str(run), "--trials", "3"], environment)
    return {
        "data": name, "examples": count, "mib": count * source.mib, "reading_seconds": read,
        "reading_peak_mib": reading, "run_seconds": first, "run_peak_mib": peak, "resume_seconds": again,
        "resume_peak_mib": resumed,
    }  # fmt: skip


_READ = (
    "import sys, slimsearch\n"
    "data, target = sys.argv[1:]\n"
    "slimsearch.load_dataset(data, target_column=target or None).fingerprint"
)


def images(folder: Path, count: int) -> Path:
    """JPEG files: noise of few pixels, enlarged, of another brightness for each class."""
    from PIL import Image

    for number in range(count):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 150 + 30 * (number % CLASSES), (14, 14, 3), dtype=np.uint8)
        file = folder / "images" / f"class{number % CLASSES}" / f"{number:06}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, quality=85)
    return folder / "images"


def arrays(folder: Path, count: int) -> Path:
    """An .npy file of float32 noise, of another deviation for each class, and one of labels."""
    (folder / "arrays").mkdir()
    shape = (count, CHANNELS, LENGTH)
    found = np.lib.format.open_memmap(folder / "arrays" / "x.npy", mode="w+", dtype=np.float32, shape=shape)
    for start, block in signals(count):
        found[start : start + len(block)] = block
    np.save(folder / "arrays" / "y.npy", np.arange(count) % CLASSES)
    return folder / "arrays"


def archive(folder: Path, count: int) -> Path:
    """The same arrays in a compressed .npz file."""
    file = folder / "signals.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as written:
        with written.open("x.npy", "w", force_zip64=True) as stream:
            header = {"shape": (count, CHANNELS, LENGTH), "fortran_order": False, "descr": "<f4"}
            np.lib.format.write_array_header_1_0(stream, header)
            for _, block in signals(count):
                stream.write(block.data)
        with written.open("y.npy", "w") as stream:
            np.lib.format.write_array(stream, np.arange(count) % CLASSES)
    return file


def signals(count: int) -> Iterator[tuple[int, np.ndarray[Any, np.dtype[Any]]]]:
    """The index of the first of some signals, and these, float32 with few digits."""
    for start in range(0, count, _BLOCK):
        rng = np.random.default_rng(start)
        numbers = np.arange(start, min(count, start + _BLOCK))
        noise = rng.standard_normal((len(numbers), CHANNELS, LENGTH), dtype=np.float32)
        yield start, np.round(noise * (1 + numbers % CLASSES)[:, None, None], 1).astype(np.float32)


def rows_of_text(folder: Path, count: int) -> Path:
    """A CSV file: numbers, two columns of texts, and missing values."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(_BLOCK, COLUMNS - 3))
    lines = []
    for index, values in enumerate(noise):
        label = index % CLASSES
        numbers = ",".join("" if value > 2.5 else f"{value + label:.5f}" for value in values)
        lines.append(f"{numbers},{['red', 'green', 'blue'][index % 3]},city{index % 50},class{label}\n")
    file = folder / "rows.csv"
    with file.open("w", encoding="utf-8") as written:
        written.write(",".join(["row", *(f"number{index}" for index in range(COLUMNS - 3)), "color", "city", "kind"]))
        written.write("\n")
        for start in range(0, count, _BLOCK):
            written.writelines(f"{start + index}.5,{line}" for index, line in enumerate(lines[: count - start]))
    return file


SOURCES = {
    "images": Source("images", images, 200, 20_000, 3 * SIDE**2 / _MIB),
    ".npy": Source("signals", arrays, 1_000, 98_304, 4 * CHANNELS * LENGTH / _MIB),
    ".npz": Source("signals", archive, 1_000, 32_768, 4 * CHANNELS * LENGTH / _MIB),
    ".csv": Source("table", rows_of_text, 10_000, 3_200_000, 335 / _MIB, ("--target-column", "kind")),
}


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
