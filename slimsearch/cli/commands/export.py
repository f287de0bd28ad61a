"""``slimsearch export``: exports models of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slimsearch.cli.command_parser import CommandParser, trial_numbers
from slimsearch.errors import SlimsearchError, escaped

HELP = "export models of a run as ONNX, torch.export or TorchScript files, each checked against its network"
_EXAMPLES = (
    "runs/mnist_cnn-20260101-120000 --to models",
    "runs/mnist_cnn-20260101-120000 --models 7,22 --format torch-export --to models",
)


def parser(program: str) -> CommandParser:
    found = CommandParser(HELP, program, _EXAMPLES)
    found.add_argument("run_dir", help="the run directory")
    found.add_argument("--models", help="trial numbers, such as 7,22 (default: the Pareto front)")
    found.add_argument("--format", default="onnx", help="onnx, torch-export or torchscript")
    found.add_argument("--to", default=".", metavar="FOLDER", help="folder of the files")
    return found


def run(options: dict[str, Any]) -> None:
    from slimsearch.report.exporting import FORMATS, export

    if options["format"] not in FORMATS:
        raise SlimsearchError(f"--format '{options['format']}' is none of {', '.join(FORMATS)}")
    numbers = trial_numbers(options["models"])
    for file in export(Path(options["run_dir"]), numbers, options["format"], Path(options["to"])):
        parity = "checked by the run" if file.error is None else f"logits within {file.error:.1e} of the network's"
        print(escaped(f"{file.path}  {parity}" + (f"; {file.note}" if file.note else "")))
