"""Decisions, RAM and flash of C files, against ONNX Runtime's decisions and what tools measure.

    python experiments/benchmarks/c_export.py --mnist data --json c_export.json --page docs/benchmarks.md

Random networks of five spaces are trained for some steps, exported in float32 and int8, written as C, compiled with
``-O2`` and run here. Needs a C compiler and binutils' ``size``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

import numpy as np

from experiments.benchmarks._output import add_output, check_output, table, write_output
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.compression import CompiledNetwork, Network, Quantization, export_onnx, memory_kib, write_c
from slimsearch.evaluators import DeployedModel
from slimsearch.evaluators.datasets import load_dataset
from slimsearch.search_spaces import ModelSpace

if TYPE_CHECKING:
    from torch import Tensor, nn

    Array = np.ndarray[Any, np.dtype[Any]]

SPACES = ("lenet", "mnist_cnn", "tiny_cnn", "resnet_cifar", "mobilenet_small")
_FORMS = {"float32": None, "int8": Quantization()}
_NAME = "network"
_BATCH = 64


@dataclass(frozen=True)
class Measured:
    """One C file.

    Attributes:
        space, number, form: of the network.
        ram_kib, flash_kib: declared.
        bss_kib, constants_kib, code_kib: measured by ``size``.
        stack_bytes: measured by a watermark.
        images: classified by both.
        different: images for which the decisions differ.
        largest_difference: of the outputs, relative to the largest output.
        memory_ms: time of `memory_kib`.
        c_ms: for one image.
    """

    space: str
    number: int
    form: str
    ram_kib: float
    flash_kib: float
    bss_kib: float
    constants_kib: float
    code_kib: float
    stack_bytes: int
    images: int
    different: int
    largest_difference: float
    memory_ms: float
    c_ms: float


def main(words: Sequence[str] | None = None) -> int:
    """Measure all networks and write the table."""
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--mnist", type=Path, required=True, metavar="FOLDER", help="folder with the files of MNIST")
    parser.add_argument("--networks", type=int, default=10, help="networks of each space, each in two forms")
    parser.add_argument("--images", type=int, default=10_000, help="most images for each file")
    parser.add_argument("--seconds", type=float, default=5, help="most seconds for the images of a C file")
    parser.add_argument("--steps", type=int, default=20, help="steps of training")
    add_output(parser, page=True)
    options = parser.parse_args(words)
    return exit_code(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> None:
    import torch

    check_output(options)
    torch.set_num_threads(1)
    data = load_dataset("mnist", root=str(options.mnist))
    images = data.normalise(data.train.inputs[: options.images])
    trained = range(options.steps * _BATCH)
    labels = torch.from_numpy(data.train.targets[trained].astype(np.int64))
    examples = data.normalise(data.train.inputs[trained])
    rows: list[Measured] = []
    for name in SPACES:
        space = ModelSpace.load(name, data.input_shape, len(data.classes), None)
        for number in range(options.networks):
            module = space.build(space.sample(np.random.default_rng(number)), number)
            _train(module, examples, labels)
            for form, plan in _FORMS.items():
                with tempfile.TemporaryDirectory() as folder:
                    file = Path(folder) / "model.onnx"
                    export_onnx(Network(module, {}, plan), file, examples[:256])
                    rows.append(_measured(name, number, form, file, images, options.seconds))
                print(*asdict(rows[-1]).values(), flush=True)
                write_output(options, [asdict(row) for row in rows])
    write_output(options, [asdict(row) for row in rows], {"c_export": _table(rows)})


def _train(module: nn.Module, images: Tensor, labels: Tensor) -> None:
    import torch
    import torch.nn.functional as F

    optimizer = torch.optim.AdamW(module.parameters(), 2e-3)
    module.train()
    for start in range(0, len(labels), _BATCH):
        optimizer.zero_grad()
        loss = F.cross_entropy(module(images[start : start + _BATCH]), labels[start : start + _BATCH])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    module.eval()


def _measured(space: str, number: int, form: str, file: Path, images: Tensor, seconds: float) -> Measured:
    start = time.perf_counter()
    declared = memory_kib(file)
    memory_ms = 1e3 * (time.perf_counter() - start)
    source = file.with_suffix(".c")
    write_c(file, source, _NAME)
    network = CompiledNetwork(source, _NAME, file.parent)
    start = time.perf_counter()
    network(images[:20].numpy())
    each = (time.perf_counter() - start) / 20
    some = images[: max(20, int(seconds / each))].numpy()
    start = time.perf_counter()
    found = network(some)
    c_ms = 1e3 * (time.perf_counter() - start) / len(some)
    model = DeployedModel(file)
    expected = np.concatenate([model(some[start : start + _BATCH]) for start in range(0, len(some), _BATCH)])
    sections = _sections(network.object_file)
    bss, constants, code = (
        sum(size for name, size in sections if name.startswith(kind)) / 1024 for kind in (".bss", ".rodata", ".text")
    )
    return Measured(
        space, number, form, declared["ram_kib"], declared["flash_kib"],
        bss, constants, code, network.stack_bytes, len(some), int((found.argmax(1) != expected.argmax(1)).sum()),
        float(np.abs(found - expected).max() / np.abs(expected).max()), memory_ms, c_ms,
    )  # fmt: skip


def _sections(object_file: Path) -> list[tuple[str, int]]:
    """Name and bytes of each section of an object file."""
    done = subprocess.run(["size", "-A", str(object_file)], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    return [(line[0], int(line[1])) for line in lines if len(line) == 3 and line[1].isdigit()]


def _table(rows: Sequence[Measured]) -> str:
    headings = (
        "space", "form", "files", "RAM, KiB", "RAM against `size`", "stack, bytes", "flash, KiB",
        "flash against `size`", "code, KiB", "images", "other decisions", "largest difference", "ms to compute",
    )  # fmt: skip
    cells = []
    for space in SPACES:
        for form in _FORMS:
            some = [row for row in rows if (row.space, row.form) == (space, form)]
            if some:
                cells.append((f"`{space}`", form, *_cells(some)))
    return table(headings, cells)


def _cells(rows: Sequence[Measured]) -> list[str]:
    return [
        str(len(rows)),
        _range([row.ram_kib for row in rows], "{:.1f}"),
        _off([(row.ram_kib, row.bss_kib) for row in rows]),
        _range([row.stack_bytes for row in rows], "{:.0f}"),
        _range([row.flash_kib for row in rows], "{:.1f}"),
        _off([(row.flash_kib, row.constants_kib) for row in rows]),
        _range([row.code_kib for row in rows], "{:.1f}"),
        f"{sum(row.images for row in rows):,}",
        str(sum(row.different for row in rows)),
        f"{max(row.largest_difference for row in rows):.0e}",
        _range([row.memory_ms for row in rows], "{:.0f}"),
    ]


def _range(numbers: Sequence[float], form: str) -> str:
    low, high = (form.format(number) for number in (min(numbers), max(numbers)))
    return low if low == high else f"{low} to {high}"


def _off(pairs: Sequence[tuple[float, float]]) -> str:
    """The largest deviation of what is declared from what is measured."""
    return f"{100 * max(abs(declared / measured - 1) for declared, measured in pairs):.2f}%"


if __name__ == "__main__":
    sys.exit(main())
