"""An exported file on images of anybody's: all that it needs to be used is in the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.compression import read_onnx
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import read_image
from slimsearch.evaluators.deployed.deployed_model import DeployedModel
from slimsearch.reading import mismatch

_BATCH = 64
_METADATA = {"classes": [str], "mean": [float], "std": [float]}


@dataclass(frozen=True)
class Prediction:
    """Of one image.

    Attributes:
        path: of its file.
        shares: softmax of the logits by class, the largest first. They add up to 1, and are not calibrated.
        error: why it could not be read; there are no shares then.
    """

    path: Path
    shares: dict[str, float]
    error: str | None = None


class Classifier:
    """A file that `slimsearch.compression.export_onnx` wrote, with the classes and the normalisation in its metadata.

    Args:
        path: of the ONNX file.
        runtime: one of `RUNTIMES`.
        threads: that compute one call.

    Raises:
        SlimsearchError: it is no such file.
    """

    def __init__(self, path: Path, runtime: str = "onnxruntime", threads: int = 1) -> None:
        import onnx

        model = onnx.load_model_from_string(read_onnx(path))
        found = {entry.key: entry.value for entry in model.metadata_props}
        try:
            facts = {name: json.loads(found[name]) for name in _METADATA}
        except (KeyError, ValueError, RecursionError) as error:
            raise SlimsearchError(
                f"'{path}' does not say how it is used: its metadata has no {', '.join(_METADATA)} as JSON; files that "
                "Slimsearch exports have them"
            ) from error
        shape = [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim][1:]
        wrong = mismatch(facts, _METADATA, "metadata")
        if wrong is None and (len(shape) != 3 or min(shape) < 1 or shape[0] not in (1, 3)):
            wrong = f"its input is of the shape {shape}, not (C, H, W) with 1 or 3 channels"
        if wrong is None and not len(facts["mean"]) == len(facts["std"]) == shape[0]:
            wrong = f"it has {shape[0]} channels and {len(facts['mean'])} means"
        if wrong is not None:
            raise SlimsearchError(f"'{path}': {wrong}")
        self.classes = tuple(facts["classes"])
        self.input_shape = tuple(shape)
        self._mean, self._std = (np.array(facts[name], np.float32)[:, None, None] for name in ("mean", "std"))
        self._model = DeployedModel(path, threads, runtime)

    def predict(self, images: Sequence[Path]) -> Iterator[Prediction]:
        """One for each image file, in their order; each is resized to the input and made grey or colour like it."""
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
        """(C, H, W) float32, normalised."""
        channels, height, width = self.input_shape
        pixels = read_image(path, (height, width), channels).reshape(height, width, channels)
        return ((pixels.transpose(2, 0, 1).astype(np.float32) / 255) - self._mean) / self._std
