"""Decisions, RAM and flash of C files, against ONNX Runtime's decisions and what tools measure.

    python experiments/benchmarks/c_export.py --mnist data --json c_export.json --page docs/benchmarks.md

Random networks of the image spaces for 20x20 pixels, of those whose int8 file fits the profile ``cortex-m4``, are
exported in float32 and int8, written as C, compiled with ``-O2`` and run here. Their weights are random, and the
statistics of batch normalizations are those of 256 images. Files that are in the JSON file already are not measured
again. Needs a C compiler and binutils' ``size``.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the root of the checkout instead of this folder

import numpy as np

from experiments.benchmarks._output import add_output, check_output, known_rows, table, write_output
from slimsearch.cli.command_parser import CommandParser
from slimsearch.cli.exit_code import exit_code
from slimsearch.compression import CompiledNetwork, Network, Quantization, export_onnx, memory_kib, write_c
from slimsearch.evaluators import DeployedModel
from slimsearch.evaluators.datasets import load_dataset
from slimsearch.options.device_profiles import device_profile
from slimsearch.search_spaces import ModelSpace

if TYPE_CHECKING:
    from torch import Tensor

    Array = np.ndarray[Any, np.dtype[Any]]

NETWORKS = {
    "tiny_cnn": 20, "lenet": 12, "mobilenet_small": 12, "resnet_cifar": 12, "unet_small": 12, "mlp": 10,
    "mnist_cnn": 10, "nasbench201": 5, "resnet18": 4, "darts": 3,
}  # fmt: skip
"""Networks of each space, fewer where they are slow."""
_FORMS = {"float32": None, "int8": Quantization()}
_NAME = "network"
_BATCH = 64
_CALIBRATION = 256
_TRIED = 50  # images, before the others
_SIDE = 20
_TARGET = "cortex-m4"


@dataclass(frozen=True)
class Measured:
    """One C file.

    Attributes:
        space, number, form: of the network.
        ram_kib, flash_kib: declared.
        bss_kib, constants_kib, code_kib: measured by ``size``, see `sizes_kib`.
        stack_bytes: measured by a watermark.
        images: classified by both.
        different: images for which a decision differs; a mask has one for each pixel.
        largest_difference: of the outputs, relative to the largest output.
        c_ms: processor time for one image.
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
    c_ms: float


def main(words: Sequence[str] | None = None) -> int:
    """Measure all networks and write the table."""
    parser = CommandParser(__doc__.partition("\n")[0])
    parser.add_argument("--mnist", type=Path, required=True, metavar="FOLDER", help="folder with the files of MNIST")
    parser.add_argument("--share", type=float, default=1, help="measure this share of the 100 networks")
    parser.add_argument("--images", least=1, default=10_000, help="most images for each file")
    parser.add_argument("--seconds", type=float, default=60, help="most processor seconds for the images of a C file")
    add_output(parser, page=True)
    options = parser.parse_args(words)
    return exit_code(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> None:
    import torch

    check_output(options)
    torch.set_num_threads(1)
    data = load_dataset("mnist", root=str(options.mnist))
    images = _smaller(data.normalise(data.train.inputs[: options.images]))
    rows = [Measured(**row) for row in known_rows(options)]
    measured = {(row.space, row.number) for row in rows}
    shares = {(name, i): (i + 1) / count for name, count in NETWORKS.items() for i in range(count)}
    for name, number in sorted(shares, key=shares.__getitem__):
        if shares[name, number] > options.share or (name, number) in measured:
            continue
        with tempfile.TemporaryDirectory() as folder:
            files = _files(name, number, images[:_CALIBRATION], Path(folder), len(data.classes))
            rows += [_measured(name, number, form, files[form], images, options.seconds) for form in _FORMS]
        for row in rows[-len(_FORMS) :]:
            print(*asdict(row).values(), flush=True)
        write_output(options, [asdict(row) for row in rows])
    write_output(options, [asdict(row) for row in rows], {"c_export": _table(rows)})


def _smaller(images: Tensor) -> Tensor:
    """(N, 1, 28, 28) -> (N, 1, 20, 20), means of areas."""
    import torch.nn.functional as F

    return F.interpolate(images, size=(_SIDE, _SIDE), mode="area")


def _files(name: str, number: int, images: Tensor, folder: Path, classes: int) -> dict[str, Path]:
    """The ONNX files of a network, by form: the first of a series of random ones that fits the target."""
    import torch

    profile = device_profile(_TARGET)
    ram = (profile.ram_kib or 0) - profile.reserved_ram_kib
    flash = (profile.flash_kib or 0) - profile.reserved_flash_kib
    space = ModelSpace.load(name, (1, _SIDE, _SIDE), classes, None)
    files = {form: folder / f"{form}.onnx" for form in _FORMS}
    rng = np.random.default_rng(number)
    while True:
        module = space.build(space.sample(rng), number)
        if sum(parameter.numel() for parameter in module.parameters()) > 1024 * flash:
            continue
        for norm in module.modules():
            if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
                norm.momentum = None  # the statistics are those of all images
        with torch.no_grad():
            module.train()(images)
        export_onnx(Network(module.eval(), {}, _FORMS["int8"]), files["int8"], images)
        memory = memory_kib(files["int8"])
        if memory["ram_kib"] <= ram and memory["flash_kib"] <= flash:
            export_onnx(Network(module), files["float32"], images)
            return files


def _measured(space: str, number: int, form: str, file: Path, images: Tensor, seconds: float) -> Measured:
    declared = memory_kib(file)
    source = file.with_suffix(".c")
    write_c(file, source, _NAME)
    network = CompiledNetwork(source, _NAME, file.parent)
    start = _children_seconds()
    network(images[:_TRIED].numpy())
    each = (_children_seconds() - start) / _TRIED
    some = images[: max(_TRIED, int(seconds / max(each, 1e-6)))].numpy()
    start = _children_seconds()
    found = network(some)
    c_ms = 1e3 * (_children_seconds() - start) / len(some)
    model = DeployedModel(file)
    expected = np.concatenate([model(some[start : start + _BATCH]) for start in range(0, len(some), _BATCH)])
    found = found.reshape(expected.shape)
    different = (found.argmax(1) != expected.argmax(1)).reshape(len(some), -1).any(1)
    return Measured(
        space, number, form, declared["ram_kib"], declared["flash_kib"],
        *sizes_kib(network.object_file), network.stack_bytes, len(some), int(different.sum()),
        float(np.abs(found - expected).max() / np.abs(expected).max()), c_ms,
    )  # fmt: skip


def _children_seconds() -> float:
    """Processor time of the programs that were run."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def sizes_kib(object_file: Path) -> tuple[float, float, float]:
    """Static memory, constants and code of an object file.

    The numbers that the compiler puts beside the code, in sections such as ``.rodata.cst4``, count as code: compilers
    for Arm put them into ``.text``.
    """
    done = subprocess.run(["size", "-A", str(object_file)], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    sections = {line[0]: int(line[1]) / 1024 for line in lines if len(line) == 3 and line[1].isdigit()}
    code = sum(size for name, size in sections.items() if name.startswith((".text", ".rodata.cst")))
    return sections.get(".bss", 0.0), sections.get(".rodata", 0.0), code


def _table(rows: Sequence[Measured]) -> str:
    headings = (
        "space", "form", "networks", "images of each", "other decisions", "largest difference", "RAM, KiB",
        "RAM against `size`", "largest stack, bytes", "flash, KiB", "flash against `size`", "code, KiB",
    )  # fmt: skip
    cells = []
    for space in (*NETWORKS, None):
        for form in _FORMS:
            some = [row for row in rows if row.space == (space or row.space) and row.form == form]
            if some:
                cells.append((f"`{space}`" if space else "all", form, *_cells(some)))
    return table(headings, cells)


def _cells(rows: Sequence[Measured]) -> list[str]:
    return [
        str(len(rows)),
        _range([row.images for row in rows], "{:,.0f}"),
        str(sum(row.different for row in rows)),
        f"{max(row.largest_difference for row in rows):.0e}",
        _range([row.ram_kib for row in rows], "{:.1f}"),
        _off([(row.ram_kib, row.bss_kib) for row in rows]),
        str(max(row.stack_bytes for row in rows)),
        _range([row.flash_kib for row in rows], "{:.1f}"),
        _off([(row.flash_kib, row.constants_kib) for row in rows]),
        _range([row.code_kib for row in rows], "{:.1f}"),
    ]


def _range(numbers: Sequence[float], form: str) -> str:
    low, high = (form.format(number) for number in (min(numbers), max(numbers)))
    return low if low == high else f"{low} to {high}"


def _off(pairs: Sequence[tuple[float, float]]) -> str:
    """The largest deviation of what is declared from what is measured."""
    return f"{100 * max(abs(declared / measured - 1) for declared, measured in pairs):.2f}%"


if __name__ == "__main__":
    sys.exit(main())
