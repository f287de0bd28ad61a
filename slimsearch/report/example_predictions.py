"""Predictions of finalists for test examples, as the report shows them: truth against prediction, and drawn masks."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel, load_arrays, save_arrays
from slimsearch.evaluators.datasets import Dataset, Split
from slimsearch.files import atomic

_VALUES, _MASKS = "test_predictions.safetensors", "test_masks.png"
_SHOWN_MASKS = 6
_MOST_POINTS = 400  # of a plot
_MOST_BYTES = 2**19  # of a picture in the page
# Of classes 0, 1, ...: background, then colors that stay apart for all kinds of color vision (Okabe and Ito 2008).
_COLORS = np.array(
    [(240, 240, 235), (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0)],
    dtype=np.uint8,
)  # fmt: skip

Array = np.ndarray[Any, np.dtype[Any]]


def store(model: DeployedModel, data: Dataset, test: Split, examples: Array, folder: Path) -> None:
    """Write what the report shows of a regression or a segmentation into the folder of a trial.

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
        _draw(model, data, Split(test.inputs[:_SHOWN_MASKS], test.targets[:_SHOWN_MASKS]), folder / _MASKS)


def _draw(model: DeployedModel, data: Dataset, some: Split, path: Path) -> None:
    """A picture of some examples, one below the other: input, true mask, predicted mask."""
    from PIL import Image

    inputs = np.asarray(some.inputs, dtype=np.float32)
    low, high = (limit(inputs, axis=(1, 2, 3), keepdims=True) for limit in (np.min, np.max))
    pixels = ((inputs - low) / np.maximum(high - low, 1e-9) * 255).astype(np.uint8)
    shown = pixels[:, [0, 1, 2] if pixels.shape[1] >= 3 else [0, 0, 0]].transpose(0, 2, 3, 1)  # (N, H, W, 3)
    true, predicted = (_COLORS[mask % len(_COLORS)] for mask in (some.targets, model.predict(data, some)))
    gap = np.full((*shown.shape[:2], 2, 3), 255, dtype=np.uint8)
    rows = np.concatenate([shown, gap, true, gap, predicted], axis=2)  # (N, H, 3 W + 4, 3)
    rows = np.concatenate([rows, np.full((len(rows), 2, *rows.shape[2:]), 255, dtype=np.uint8)], axis=1)
    with atomic(path) as temporary:
        Image.fromarray(rows.reshape(-1, *rows.shape[2:])).save(temporary, format="PNG")


def shown(folder: Path) -> dict[str, Any]:
    """The stored predictions of a trial for its report: ``scatter``, a list of (true, predicted), and ``masks``, a URL.

    Predictions that cannot be read are left out.
    """
    found: dict[str, Any] = {}
    try:
        first = load_arrays(folder / _VALUES)["examples"]
        true, predicted = first[:, 0], first[:, first.shape[1] // 2]
        chosen = np.linspace(0, len(true) - 1, min(len(true), _MOST_POINTS)).astype(int)
        found["scatter"] = np.stack([true, predicted], axis=1)[chosen].tolist()
    except (SlimsearchError, KeyError, IndexError):
        pass
    picture = folder / _MASKS
    if picture.is_file() and picture.stat().st_size <= _MOST_BYTES:
        found["masks"] = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    return found
