"""``slimsearch export``: exports models of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slimsearch.cli.command_parser import CommandParser, trial_numbers
from slimsearch.errors import SlimsearchError, escaped

HELP = "export models of a run as files for a runtime, each checked against its network"
_EXAMPLES = (
    "runs/mnist_cnn-20260101-120000 --to models",
    "runs/mnist_cnn-20260101-120000 --models 7,22 --format torch-export --to models",
    "runs/mnist_cnn-20260101-120000 --embed-preprocessing nhwc --embed-labels --to models",
    "runs/tiny_cnn-20260101-120000 --format c --to firmware",
)


def parser(program: str) -> CommandParser:
    found = CommandParser(HELP, program, _EXAMPLES)
    found.add_argument("run_dir", help="the run directory")
    found.add_argument("--models", values=True, help="trial numbers, such as 7,22 (default: the Pareto front)")
    found.add_argument(
        "--format",
        help="onnx, c (a C file and a header), litert, executorch, openvino, torch-export or torchscript (default: the "
        "format of the run's --target or --runtime, or onnx)",
    )
    found.add_argument(
        "--embed-preprocessing", choices=("nchw", "nhwc"), metavar="LAYOUT",
        help="ONNX or C files that take uint8 pixels and normalize them; LAYOUT: nchw or nhwc",
    )  # fmt: skip
    found.add_argument(
        "--embed-labels", action="store_true",
        help="with --embed-preprocessing: ONNX files that return probabilities and class names, not logits",
    )  # fmt: skip
    found.add_argument("--to", default=".", metavar="FOLDER", help="folder of the files")
    return found


def run(options: dict[str, Any]) -> None:
    from slimsearch.report.exporting import Pixels, default_format, export
    from slimsearch.report.file_formats import FORMATS

    run_dir = Path(options["run_dir"])
    form = options["format"] or default_format(run_dir)
    if form not in FORMATS:
        raise SlimsearchError(f"--format '{form}' is none of {', '.join(FORMATS)}")
    layout, labels = options["embed_preprocessing"], options["embed_labels"]
    if labels and layout is None:
        raise SlimsearchError("--embed-labels needs --embed-preprocessing, nchw or nhwc")
    pixels = None if layout is None else Pixels(layout, labels)
    file = None
    for file in export(run_dir, trial_numbers(options["models"]), form, Path(options["to"]), pixels):
        compared = "the plain file" if pixels is not None else "the network"
        parity = "checked by the run" if file.error is None else f"within {file.error:.1e} of {compared}"
        print(escaped(f"{file.path}  {parity}" + (f"; {file.note}" if file.note else "")))
    if file is not None:
        print("", f"# Run {file.path.name}:", *file.lines, sep="\n")
