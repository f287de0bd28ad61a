"""Predictions of finalists for test examples, as the report shows them: true against predicted, and the worst."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel, load_arrays, save_arrays
from slimsearch.evaluators.datasets import Dataset, Split, are_pictures, picture_url, pictures, pixels
from slimsearch.evaluators.tasks import Classification
from slimsearch.evaluators.tasks.multilabel import Multilabel
from slimsearch.files import atomic

_VALUES, _MASKS, _MISTAKES = "test_predictions.safetensors", "test_masks.png", "test_mistakes.safetensors"
_SHOWN_MASKS, _SHOWN_MISTAKES, _SHOWN_ERRORS = 6, 12, 8
_UNREADABLE = (SlimsearchError, KeyError, IndexError, ValueError, TypeError)
_MOST_POINTS = 400  # of a plot
_MOST_BYTES = 2**19  # of a picture in the page
# Of classes 0, 1, ...: background, then colors that stay apart for all kinds of color vision (Okabe and Ito 2008).
_COLORS = np.array(
    [(240, 240, 235), (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0)],
    dtype=np.uint8,
)  # fmt: skip

Array = np.ndarray[Any, np.dtype[Any]]


def store(model: DeployedModel, data: Dataset, test: Split, examples: Array, folder: Path) -> None:
    """Write what the report shows of single test examples into the folder of a trial.

    Args:
        model: the exported file.
        data: the data set.
        test: its test split.
        examples: `LearningTask.examples` of the file for `test`.
        folder: of the trial.
    """
    if data.task.name == "regression":
        save_arrays({"examples": examples.astype(np.float32)}, folder / _VALUES)
    elif data.task.name == "segmentation" and len(data.input_shape) == 3:
        right, either = (pixels.sum(axis=1) for pixels in np.split(examples, 2, axis=1))
        worst = np.argsort(right / np.maximum(either, 1), kind="stable")[:_SHOWN_MASKS]
        _draw(model, data, Split(_chosen(test.inputs, worst), _chosen(test.targets, worst)), folder / _MASKS)
    elif isinstance(data.task, Classification | Multilabel) and not data.fields:
        found = _mistakes(data, examples)
        if are_pictures(data.input_shape):
            found["images"] = pictures(_chosen(test.inputs, found["example"]))
        save_arrays(found, folder / _MISTAKES)


def _chosen(values: Any, indices: Array) -> Array:
    """Some examples of an array, which may be on disk."""
    if not len(indices):
        return np.empty((0, *values.shape[1:]), dtype=values.dtype)
    return np.concatenate([np.asarray(values[index : index + 1]) for index in indices.tolist()])


def _mistakes(data: Dataset, examples: Array) -> dict[str, Array]:
    """The worst mistakes: the examples whose wrong classes are the most probable, or with the most wrong labels."""
    if isinstance(data.task, Classification):
        wrong = np.flatnonzero(examples[:, 0] == 0)
        true, predicted = (examples[wrong, column].astype(np.int64) for column in (1, 2))
        share = examples[wrong, 3 + predicted].astype(np.float32)
        order = np.argsort(-share, kind="stable")[:_SHOWN_MISTAKES]
        true, predicted = true[:, None], predicted[:, None]
    else:
        labels, said, _ = np.split(examples, 3, axis=1)
        count = (labels != said).sum(axis=1)
        wrong = np.flatnonzero(count)
        order = np.argsort(-count[wrong], kind="stable")[:_SHOWN_MISTAKES]
        true, predicted = (bits[wrong].astype(np.int64) for bits in (labels, said))
        share = np.zeros(len(wrong), dtype=np.float32)
    return {"example": wrong[order], "true": true[order], "predicted": predicted[order], "share": share[order]}


def _draw(model: DeployedModel, data: Dataset, some: Split, path: Path) -> None:
    """A picture of some examples, one below the other: input, true mask, predicted mask."""
    from PIL import Image

    shown = pixels(some.inputs)
    true, predicted = (_COLORS[mask % len(_COLORS)] for mask in (some.targets, model.predict(data, some)))
    gap = np.full((*shown.shape[:2], 2, 3), 255, dtype=np.uint8)
    rows = np.concatenate([shown, gap, true, gap, predicted], axis=2)  # (N, H, 3 W + 4, 3)
    rows = np.concatenate([rows, np.full((len(rows), 2, *rows.shape[2:]), 255, dtype=np.uint8)], axis=1)
    with atomic(path) as temporary:
        Image.fromarray(rows.reshape(-1, *rows.shape[2:])).save(temporary, format="PNG")


def shown(folder: Path) -> dict[str, Any]:
    """The stored predictions of a trial for its report.

    Returns:
        of a regression, ``scatter``, a list of (true, predicted), and ``errors``, the largest ones as (index in the
        test split, true, predicted), both of the first target; of a segmentation, ``masks``, a URL; of a
        classification, ``mistakes``, dicts with the index of the "example" in the test split, its "true" and
        "predicted" labels, the "share", which is the probability of the predicted class, and its "image", a URL or
        None. What cannot be read is left out.
    """
    found: dict[str, Any] = {}
    with contextlib.suppress(*_UNREADABLE):
        found["mistakes"] = _read_mistakes(load_arrays(folder / _MISTAKES))
    with contextlib.suppress(*_UNREADABLE):
        first = load_arrays(folder / _VALUES)["examples"]
        true, predicted = first[:, 0], first[:, first.shape[1] // 2]
        chosen = np.linspace(0, len(true) - 1, min(len(true), _MOST_POINTS)).astype(int)
        both = np.stack([true, predicted], axis=1)
        found["scatter"] = both[chosen].tolist()
        worst = np.argsort(-np.abs(predicted - true), kind="stable")[:_SHOWN_ERRORS]
        found["errors"] = [[int(i), *both[i].tolist()] for i in worst]
    picture = folder / _MASKS
    if picture.is_file() and picture.stat().st_size <= _MOST_BYTES:
        found["masks"] = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    return found


def _read_mistakes(arrays: dict[str, Array]) -> list[dict[str, Any]]:
    true, predicted = arrays["true"], arrays["predicted"]
    several = true.shape[1] > 1
    images = arrays.get("images")
    urls: list[str | None] = [None] * len(true)
    if images is not None and images.nbytes <= _MOST_BYTES:
        urls = [picture_url(image) for image in images]

    def labels(row: Array) -> list[int]:
        return [int(label) for label in (np.flatnonzero(row) if several else row)]

    return [
        {
            "example": int(arrays["example"][i]), "true": labels(true[i]), "predicted": labels(predicted[i]),
            "share": float(arrays["share"][i]), "image": urls[i],
        }
        for i in range(min(len(true), _SHOWN_MISTAKES))
    ]  # fmt: skip
