"""``slimsearch explain``: why a quantized file lost."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.cli.command_parser import CommandParser
from slimsearch.files import write_json
from slimsearch.progress import progress

if TYPE_CHECKING:
    from slimsearch.checks.quantized_file import QuantizedFile, QuantizedLayer

HELP = "show the accuracy loss of each layer of a quantized file, and its cost in float32"
_DESCRIPTION = (
    f"{HELP}. Makes the file again with each layer quantized alone, and with each of the worst layers in float32, and "
    "scores these files on the validation split"
)
_EXAMPLES = (
    "runs/mnist_cnn-20260101-120000/trials/00026",
    "runs/mnist_cnn-20260101-120000/trials/00026/model.onnx --top 3 --json layers.json",
)


def parser(program: str) -> CommandParser:
    found = CommandParser(_DESCRIPTION, program, _EXAMPLES)
    found.add_argument("file", help="a quantized file in a run directory, or the folder of its trial")
    found.add_argument("--top", least=0, default=5, help="number of the worst layers to measure in float32")
    found.add_argument("--storage", help="URL of the study, if it is in a database on another machine")
    found.add_argument("--json", metavar="PATH", help="write the results as JSON")
    return found


def run(options: dict[str, Any]) -> None:
    from slimsearch.checks.quantized_file import explained

    with progress("examining the file"):
        found = explained(Path(options["file"]), options["top"], options["storage"])
    _show(found)
    if options["json"] is not None:
        write_json(Path(options["json"]), dataclasses.asdict(found))


def _show(found: QuantizedFile) -> None:
    from rich.table import Table

    from slimsearch.report.tables import console, plain

    out, unit = console(), found.lost.unit
    for name, costs in (("float32", found.float32), ("quantized", found.quantized)):
        out.print(
            f"{name}: {found.metric} {costs[found.metric]:.4f}, {costs['size_kib']:.1f} KiB, "
            f"{costs['latency_ms']:.3g} ms"
        )
    out.print(f"{found.metric} {found.lost} on {found.examples:,} validation examples")
    if found.same < 1:
        same = f"{100 * found.same:.2f}%"
        out.print(f"The file made again here predicts what '{plain(found.file)}' predicts for {same} of them.")
    table = Table()
    headings = ("layer", "bits", "SQNR, dB", f"alone, {unit}", "output error", f"in float32, {unit}", "KiB", "ms")
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left", overflow="fold")
    for layer in found.layers:
        table.add_row(plain(layer.name), *_cells(layer, worse=1 if unit == "%" else -1))
    out.print(table)


def _cells(layer: QuantizedLayer, worse: int) -> list[str]:
    """The numbers of a layer; changes of the metric have the sign of its change."""
    kept = layer.in_float32
    return [
        str(layer.bits),
        "" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f}",
        f"{worse * layer.lost + 0.0:+.2f}",
        f"{layer.error:.1e}",
        *(
            ("", "", "")
            if kept is None
            else (f"{-worse * kept.gained + 0.0:+.2f}", f"{kept.size_kib:+.1f}", f"{kept.latency_ms:+.3f}")
        ),
    ]
