"""``slimsearch predict``: classifies images with an exported file."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from slimsearch.cli.command_parser import CommandParser, whole_number
from slimsearch.errors import SlimsearchError, escaped

HELP = "classify images with an exported file"
_DESCRIPTION = (
    f"{HELP}. Prints a line for each image: its most likely classes with their softmax scores. Images are resized to "
    "the input size of the file."
)
_EXAMPLES = (
    "runs/mnist_cnn-20260101-120000/trials/00007/model.onnx path/to/image.png path/to/folder",
    "model.onnx path/to/folder --top 3 --json",
)


def parser(program: str) -> CommandParser:
    found = CommandParser(_DESCRIPTION, program, _EXAMPLES)
    found.add_argument("file", help="an exported ONNX file")
    found.add_argument("images", nargs="+", help="image files, and folders to search recursively")
    found.add_argument("--top", type=whole_number, default=1, help="number of classes to print")
    found.add_argument("--json", action="store_true", help="print a line of JSON for each image")
    found.add_argument("--runtime", default="onnxruntime", help="onnxruntime or openvino")
    return found


def run(options: dict[str, Any]) -> None:
    from slimsearch.evaluators import RUNTIMES, Classifier
    from slimsearch.evaluators.datasets import image_files, skipped_files

    if options["top"] < 1:
        raise SlimsearchError(f"--top {options['top']} is less than 1")
    if options["runtime"] not in RUNTIMES:
        raise SlimsearchError(f"--runtime '{options['runtime']}' is none of {', '.join(RUNTIMES)}")
    paths: list[Path] = []
    for named in map(Path, options["images"]):
        found, skipped = image_files(named) if named.is_dir() else ([named], Counter())
        if not found:
            raise SlimsearchError(f"there are no images in '{named}'{f': {skipped_files(skipped)}' if skipped else ''}")
        if skipped:
            print(f"warning: '{escaped(str(named))}': {skipped_files(skipped)}", file=sys.stderr)
        paths += found
    unread = 0
    for prediction in Classifier(Path(options["file"]), options["runtime"]).predict(paths):
        top = dict(list(prediction.shares.items())[: options["top"]])
        if prediction.error is not None:
            unread += 1
            print(f"error: {escaped(prediction.error)}", file=sys.stderr)
        elif options["json"]:
            print(json.dumps({"image": str(prediction.path), "classes": top}))
        else:
            print(
                escaped(str(prediction.path)),
                *(f"{escaped(name)} {100 * share:.1f}%" for name, share in top.items()),
                sep="  ",
            )
    if unread:
        raise SlimsearchError(f"{unread} of {len(paths)} images could not be read")
