"""Predictions of exported files for new examples: a file's metadata holds its normalization, task and outputs."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.compression import read_onnx
from slimsearch.errors import SlimsearchError, escaped
from slimsearch.evaluators.datasets import (
    TABLES,
    WHITE,
    columns_from,
    columns_of,
    fields_from,
    input_of,
    inputs_like,
    positions,
    read_frame,
    read_header,
    read_image,
    read_inputs,
    read_named_inputs,
)
from slimsearch.evaluators.deployed.deployed_model import DeployedModel, onnx_of
from slimsearch.evaluators.tasks import Classification, LearningTask, load_task
from slimsearch.names import built_in_names
from slimsearch.packed import named, unpacked
from slimsearch.reading import mismatch

Array = np.ndarray[Any, np.dtype[Any]]

_log = logging.getLogger(__name__)

_BATCH = 64
_METADATA = {"classes": [str], "mean": [float], "std": [float]}
_TASKS = "slimsearch.evaluators.tasks"


@dataclass(frozen=True)
class Prediction:
    """The prediction for one example.

    Attributes:
        example: path of an image file, or position of a row or of an example in an array.
        values: of a classification the softmax of the logits by class, the largest first, not calibrated; of other
            tasks the predicted number of each output; of masks, and of a task of the user's, a list; of several outputs
            a list for each. Empty if the image is unreadable.
        error: why the image could not be read, or None.
    """

    example: Path | int
    values: Mapping[str, Any] | list[Any]
    error: str | None = None


class Predictor:
    """An exported file, with the metadata of its ONNX file.

    Args:
        path: of the ONNX file, or of a converted file beside it.
        runtime: one of `slimsearch.runtimes.RUNTIMES`.
        threads: per call.

    Raises:
        SlimsearchError: the file cannot be loaded, or lacks the metadata.

    Attributes:
        task: what the file predicts; None for a task of the user's, whose outputs are not interpreted.
        classes: names of the outputs.
        input_shape: of one example.
    """

    def __init__(self, path: Path, runtime: str = "onnxruntime", threads: int = 1) -> None:
        import onnx

        source = onnx_of(path)
        if source != path and not source.is_file():
            raise SlimsearchError(f"'{path}' needs '{source.name}' beside it, which describes its inputs and outputs")
        model = onnx.load_model_from_string(read_onnx(source))
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        try:
            facts = {name: json.loads(metadata[name]) for name in _METADATA}
            facts |= {"white": json.loads(metadata.get("white", str(WHITE)))}
            columns = json.loads(metadata.get("columns", "[]"))
            inputs, outputs = (json.loads(metadata.get(name, "{}")) for name in ("inputs", "outputs"))
            task = json.loads(metadata.get("task", '{"name": "classification"}'))
        except (KeyError, ValueError, RecursionError) as error:
            raise SlimsearchError(
                f"'{path}': the metadata has no {', '.join(_METADATA)} as JSON; export the model with Slimsearch"
            ) from error
        read = model.graph.input[0].type.tensor_type
        shape = [dimension.dim_value for dimension in read.shape.dim][1:]
        self._takes_bytes = read.elem_type == onnx.TensorProto.UINT8
        self._channels_last = self._takes_bytes and metadata.get("layout") == "nhwc" and len(shape) == 3
        if self._channels_last:
            shape = [shape[2], *shape[:2]]
        if self._takes_bytes and len(model.graph.output) > 1:
            raise SlimsearchError(f"'{path}' gives the names of classes itself; predict reads files of logits")
        self._fields = fields_from(inputs)
        channels = shape[0] if shape else 0
        if self._fields:
            counts = positions(self._fields)
            shape, channels = [int(counts.sum())], len(counts)
        wrong = mismatch(facts, _METADATA | {"white": int}, "metadata")
        if wrong is None and facts["white"] < 1:
            wrong = f"white is {facts['white']}"
        if wrong is None and (not shape or min(shape) < 1):
            wrong = f"the input has the shape {shape}, with dimensions that are not known"
        if wrong is None and not len(facts["mean"]) == len(facts["std"]) == channels:
            wrong = f"{channels} input channels, but {len(facts['mean'])} means"
        if wrong is None:
            wrong = mismatch(outputs, {str: [int]}, "outputs")
        if wrong is not None:
            raise SlimsearchError(f"'{path}': {wrong}")
        self.classes = tuple(facts["classes"])
        self.input_shape = tuple(shape)
        self.task = _task(path, task, len(self.classes))
        self._path = path
        self._columns = columns_from(columns)
        self._is_bytes = self._takes_bytes or "/ 255" in metadata.get("input", "pixel / 255")
        self._white = facts["white"]
        self._outputs = named(outputs)
        of_channels = (-1, *[1] * (len(shape) - 1))
        mean, std = (np.array(facts[name], np.float32) for name in ("mean", "std"))
        if self._fields:
            mean, std = np.repeat(mean, counts), np.repeat(std, counts)
        self._mean, self._std = mean.reshape(of_channels), std.reshape(of_channels)
        self._model = DeployedModel(path, threads, runtime)

    def images(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """Predictions for image files, in order; each is resized and made gray or RGB to match the input.

        Raises:
            SlimsearchError: the file does not take images of 1 or 3 channels.
        """
        if len(self.input_shape) != 3 or self.input_shape[0] not in (1, 3) or not self._is_bytes:
            shape = ", ".join(map(str, self.input_shape))
            raise SlimsearchError(
                f"'{self._path}' takes examples of the shape ({shape}), not image files: pass an .npy or .npz file"
            )
        for start in range(0, len(paths), _BATCH):
            yield from self._images(paths[start : start + _BATCH])

    def file(self, path: Path) -> Iterator[Prediction]:
        """Predictions for the rows of a table, the examples of an .npy file, or the array ``x`` of an .npz file.

        Of a file with several inputs, for the arrays of their names in an .npz file.

        Raises:
            SlimsearchError: the file cannot be read, lacks columns, or has examples of another shape.
        """
        if self._fields:
            inputs = input_of(read_named_inputs(path, [field.name for field in self._fields]), self._fields)
        elif path.suffix.lower() not in TABLES:
            inputs = inputs_like(read_inputs(path), self.input_shape, as_bytes=self._is_bytes)
        elif self._columns:
            inputs = columns_of(read_frame(path))[0].encoded(self._columns)
        else:
            raise SlimsearchError(f"'{self._path}' was not trained on a table; pass an .npy or .npz file")
        for start in range(0, len(inputs), _BATCH):
            found = self._predicted(self._normalised(inputs[start : start + _BATCH]))
            yield from (Prediction(start + number, values) for number, values in enumerate(found))

    def _images(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        inputs: list[Any] = []
        errors: dict[Path, str] = {}
        for path in paths:
            try:
                inputs.append(self._pixels(path))
            except SlimsearchError as error:
                errors[path] = str(error)
        found = iter(self._predicted(self._normalised(np.stack(inputs))) if inputs else [])
        for path in paths:
            yield Prediction(path, {}, errors[path]) if path in errors else Prediction(path, next(found))

    def _predicted(self, inputs: Array) -> list[Mapping[str, Any] | list[Any]]:
        outputs = np.asarray(self._model(inputs))
        if self._outputs:
            parts = unpacked(outputs, self._outputs)
            return [{name: part[index].tolist() for name, part in parts.items()} for index in range(len(outputs))]
        if self.task is None:
            return [row.tolist() for row in outputs]
        if isinstance(self.task, Classification):
            return [self._shares(np.asarray(row, dtype=np.float64)) for row in outputs]
        predictions = self.task.predictions(outputs)
        if predictions.shape[1:] != (len(self.classes),):
            return [one.tolist() for one in predictions]
        return [dict(zip(self.classes, row.tolist(), strict=True)) for row in predictions]

    def _shares(self, logits: Array) -> dict[str, float]:
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        return {self.classes[i]: float(shares[i]) for i in np.argsort(-shares, kind="stable")}

    def _pixels(self, path: Path) -> Array:
        """(C, H, W) uint8."""
        channels, height, width = self.input_shape
        if (frames := read_header(path).frames) > 1:
            _log.warning("'%s' has %d frames or pages, of which the first is read", escaped(str(path)), frames)
        pixels = read_image(path, (height, width), channels, self._white).reshape(height, width, channels)
        return pixels.transpose(2, 0, 1)

    def _normalised(self, inputs: Array) -> Array:
        if self._takes_bytes:
            return np.ascontiguousarray(inputs.transpose(0, 2, 3, 1) if self._channels_last else inputs)
        values = inputs.astype(np.float32)
        found: Array = ((values / 255 if inputs.dtype == np.uint8 else values) - self._mean) / self._std
        return found


def _task(path: Path, described: Any, outputs: int) -> LearningTask | None:
    """The task that a file's metadata describes; None if it is none of the built-in ones."""
    if mismatch(described, {"name": str}, "task") is not None:
        raise SlimsearchError(f"'{path}': the metadata has no task with a name")
    name, options = described["name"], {key: value for key, value in described.items() if key != "name"}
    if not re.fullmatch("[a-z]+", name) or name not in built_in_names(_TASKS):
        return None
    wrong = mismatch(options, {"mean?": [float], "std?": [float]}, "task")
    if wrong is None and any(len(options.get(key, [0] * outputs)) != outputs for key in ("mean", "std")):
        wrong = f"{outputs} outputs, but another number of means or deviations of the targets"
    if wrong is not None:
        raise SlimsearchError(f"'{path}': {wrong}")
    return load_task(name, **options)
