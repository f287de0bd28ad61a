"""``slimsearch export``: exports models of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slimsearch.cli.command_parser import CommandParser, trial_numbers
from slimsearch.errors import SlimsearchError, escaped

HELP = "export models of a run as ONNX, C, torch.export or TorchScript files, each checked against its network"
_EXAMPLES = (
    "runs/mnist_cnn-20260101-120000 --to models",
    "runs/mnist_cnn-20260101-120000 --models 7,22 --format torch-export --to models",
    "runs/tiny_cnn-20260101-120000 --format c --to firmware",
)


def parser(program: str) -> CommandParser:
    found = CommandParser(HELP, program, _EXAMPLES)
    found.add_argument("run_dir", help="the run directory")
    found.add_argument("--models", help="trial numbers, such as 7,22 (default: the Pareto front)")
    found.add_argument(
        "--format",
        help="onnx, c (a C file and a header), torch-export or torchscript (default: of the run's --target, or onnx)",
    )
    found.add_argument("--to", default=".", metavar="FOLDER", help="folder of the files")
    return found


def run(options: dict[str, Any]) -> None:
    from slimsearch.report.exporting import FORMATS, default_format, export

    run_dir = Path(options["run_dir"])
    form = options["format"] or default_format(run_dir)
    if form not in FORMATS:
        raise SlimsearchError(f"--format '{form}' is none of {', '.join(FORMATS)}")
    file = None
    for file in export(run_dir, trial_numbers(options["models"]), form, Path(options["to"])):
        parity = "checked by the run" if file.error is None else f"logits within {file.error:.1e} of the network's"
        print(escaped(f"{file.path}  {parity}" + (f"; {file.note}" if file.note else "")))
    if file is not None:
        print("", f"# Run {file.path.name}:", *file.lines, sep="\n")
