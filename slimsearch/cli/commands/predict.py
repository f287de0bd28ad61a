"""``slimsearch predict``: predictions of an exported file for images, arrays and tables."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.cli.command_parser import CommandParser
from slimsearch.errors import SlimsearchError, escaped
from slimsearch.options.configuration import DATA_FILES
from slimsearch.runtimes import RUNTIMES

if TYPE_CHECKING:
    from slimsearch.evaluators import Prediction, Predictor

HELP = "predict classes, labels or numbers with an exported file"
_DESCRIPTION = (
    f"{HELP}. Prints a line for each image or example: the most likely classes with their softmax scores, the labels, "
    "or the numbers in the units of the targets. Images are resized to the input size of the file."
)
_EXAMPLES = (
    "runs/mnist_cnn-20260101-120000/trials/00007/model.onnx path/to/image.png path/to/folder",
    "model.onnx path/to/folder --top 3 --json",
    "model.onnx signals.npz",
    "model.onnx rows.csv --json",
)
_LISTED = 8  # numbers of an output that is no row of named ones


def parser(program: str) -> CommandParser:
    found = CommandParser(_DESCRIPTION, program, _EXAMPLES)
    found.add_argument("file", help="an exported ONNX file, or the .tflite or .pte file beside it")
    found.add_argument(
        "inputs",
        nargs="+",
        help=f"image files, folders of images to search recursively, or files ({', '.join(DATA_FILES)})",
    )
    found.add_argument("--top", least=1, default=1, help="number of classes to print")
    found.add_argument("--json", action="store_true", help="print a line of JSON for each image or example")
    found.add_argument("--runtime", default="onnxruntime", help=", ".join(RUNTIMES))
    return found


def run(options: dict[str, Any]) -> None:
    from slimsearch.evaluators import Predictor

    if options["runtime"] not in RUNTIMES:
        raise SlimsearchError(f"--runtime '{options['runtime']}' is none of {', '.join(RUNTIMES)}")
    images, files = _inputs([Path(named) for named in options["inputs"]])
    predictor = Predictor(Path(options["file"]), options["runtime"])
    unread = 0
    of_files = itertools.chain.from_iterable(map(predictor.file, files))
    for prediction in itertools.chain(predictor.images(images) if images else (), of_files):
        if prediction.error is not None:
            unread += 1
            print(f"error: {escaped(prediction.error)}", file=sys.stderr)
        else:
            print(
                _json(prediction, predictor, options["top"])
                if options["json"]
                else _text(prediction, predictor, options["top"])
            )
    if unread:
        raise SlimsearchError(f"{unread} of {len(images)} images could not be read")


def _inputs(named: list[Path]) -> tuple[list[Path], list[Path]]:
    """The image files, those in folders too, and the files of arrays and tables."""
    from slimsearch.evaluators.datasets import image_files, skipped_files

    images: list[Path] = []
    files: list[Path] = []
    for path in named:
        if path.suffix.lower() in DATA_FILES:
            files.append(path)
            continue
        found, skipped = image_files(path) if path.is_dir() else ([path], Counter())
        if not found:
            raise SlimsearchError(f"there are no images in '{path}'{f': {skipped_files(skipped)}' if skipped else ''}")
        if skipped:
            print(f"warning: '{escaped(str(path))}': {skipped_files(skipped)}", file=sys.stderr)
        images += found
    return images, files


def _json(prediction: Prediction, predictor: Predictor, top: int) -> str:
    is_image, values = isinstance(prediction.example, Path), prediction.values
    example = {"image": str(prediction.example)} if is_image else {"example": prediction.example}
    if _classifies(predictor) and isinstance(values, Mapping):
        return json.dumps({**example, "classes": dict(itertools.islice(values.items(), top))})
    return json.dumps({**example, "prediction": values})


def _text(prediction: Prediction, predictor: Predictor, top: int) -> str:
    return "  ".join((escaped(str(prediction.example)), *map(escaped, _words(prediction.values, predictor, top))))


def _words(values: Any, predictor: Predictor, top: int) -> Iterator[str]:
    """The values of one example."""
    task = predictor.task
    if _classifies(predictor):
        yield from (f"{name} {100 * share:.1f}%" for name, share in itertools.islice(values.items(), top))
    elif task is not None and task.name == "multilabel":
        yield from [name for name, there in values.items() if there] or ["no label"]
    elif isinstance(values, dict):
        yield from (f"{name} {_listed(value)}" for name, value in values.items())
    elif task is not None and task.name == "segmentation":
        counts = Counter(itertools.chain.from_iterable(values))
        yield from (
            f"{predictor.classes[label]} {100 * count / counts.total():.1f}%" for label, count in counts.most_common()
        )
    else:
        yield _listed(values)


def _listed(values: Any) -> str:
    flat = list(_flat(values))
    return " ".join(f"{value:.6g}" for value in flat[:_LISTED]) + (" ..." if len(flat) > _LISTED else "")


def _classifies(predictor: Predictor) -> bool:
    return predictor.task is not None and predictor.task.name == "classification"


def _flat(values: Any) -> Iterator[float]:
    if isinstance(values, list):
        for value in values:
            yield from _flat(value)
    else:
        yield values
