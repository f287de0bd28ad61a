"""Classification of image files with an exported model, whose metadata holds classes and normalization."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.compression import read_onnx
from slimsearch.errors import SlimsearchError, escaped
from slimsearch.evaluators.datasets import WHITE, read_header, read_image
from slimsearch.evaluators.deployed.deployed_model import DeployedModel
from slimsearch.reading import mismatch

_log = logging.getLogger(__name__)

_BATCH = 64
_METADATA = {"classes": [str], "mean": [float], "std": [float]}


@dataclass(frozen=True)
class Prediction:
    """Classification of one image.

    Attributes:
        path: of the image file.
        shares: softmax of the logits by class, the largest first; not calibrated. Empty if the image is unreadable.
        error: why the image could not be read, or None.
    """

    path: Path
    shares: dict[str, float]
    error: str | None = None


class Classifier:
    """An ONNX file written by `slimsearch.compression.export_onnx`.

    Args:
        path: of the ONNX file.
        runtime: one of `RUNTIMES`.
        threads: per call.

    Raises:
        SlimsearchError: the file cannot be loaded, or lacks the metadata.
    """

    def __init__(self, path: Path, runtime: str = "onnxruntime", threads: int = 1) -> None:
        import onnx

        model = onnx.load_model_from_string(read_onnx(path))
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        try:
            facts = {name: json.loads(metadata[name]) for name in _METADATA}
            facts |= {"white": json.loads(metadata.get("white", str(WHITE)))}
        except (KeyError, ValueError, RecursionError) as error:
            raise SlimsearchError(
                f"'{path}': the metadata has no {', '.join(_METADATA)} as JSON; export the model with Slimsearch"
            ) from error
        shape = [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim][1:]
        wrong = mismatch(facts, _METADATA | {"white": int}, "metadata")
        if wrong is None and facts["white"] < 1:
            wrong = f"white is {facts['white']}"
        if wrong is None and (len(shape) != 3 or min(shape) < 1 or shape[0] not in (1, 3)):
            wrong = f"the input has the shape {shape}, not (C, H, W) with 1 or 3 channels"
        if wrong is None and not len(facts["mean"]) == len(facts["std"]) == shape[0]:
            wrong = f"{shape[0]} input channels, but {len(facts['mean'])} means"
        if wrong is not None:
            raise SlimsearchError(f"'{path}': {wrong}")
        self.classes = tuple(facts["classes"])
        self.input_shape = tuple(shape)
        self._white = facts["white"]
        self._mean, self._std = (np.array(facts[name], np.float32)[:, None, None] for name in ("mean", "std"))
        self._model = DeployedModel(path, threads, runtime)

    def predict(self, images: Sequence[Path]) -> Iterator[Prediction]:
        """Classify image files, in order; each is resized and converted to grayscale or RGB to match the input."""
        for start in range(0, len(images), _BATCH):
            yield from self._batch(images[start : start + _BATCH])

    def _batch(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        inputs: list[Any] = []
        errors: dict[Path, str] = {}
        for path in paths:
            try:
                inputs.append(self._input(path))
            except SlimsearchError as error:
                errors[path] = str(error)
        logits: Iterator[Any] = iter(self._model(np.stack(inputs)) if inputs else [])
        for path in paths:
            if path in errors:
                yield Prediction(path, {}, errors[path])
                continue
            row = np.asarray(next(logits), dtype=np.float64)
            shares = np.exp(row - row.max())
            shares /= shares.sum()
            order = np.argsort(-shares, kind="stable")
            yield Prediction(path, {self.classes[i]: float(shares[i]) for i in order})

    def _input(self, path: Path) -> Any:
        """(C, H, W) float32, normalized."""
        channels, height, width = self.input_shape
        if (frames := read_header(path).frames) > 1:
            _log.warning("'%s' has %d frames or pages, of which the first is classified", escaped(str(path)), frames)
        pixels = read_image(path, (height, width), channels, self._white).reshape(height, width, channels)
        return ((pixels.transpose(2, 0, 1).astype(np.float32) / 255) - self._mean) / self._std
