"""The evaluator of the project: trains or compresses a network, exports it, and scores the file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

import compression
from compression import Network
from evaluators._deployed import DeployedModel, size_kib
from evaluators._latency import Latency, measure_latency
from evaluators._meter import Meter
from evaluators._objective import finite
from evaluators._parity import check_parity
from evaluators._task import Artifact, Outcome, Report, Task
from evaluators._training import ImageTraining, StoppedEarly, TrainingSettings
from evaluators.datasets import Dataset
from slimsearch_errors import SlimsearchError

if TYPE_CHECKING:
    import torch
    from torch import nn

MODEL, PREDICTIONS, PACKED = "model.onnx", "predictions.safetensors", "packed.bin"
CHECKPOINT = "training.pt"

_BLOCKS_BEFORE_TRAINING = 9
# Seconds to wait for calm: of somebody else's work on the machine a search should not become much longer.
_PATIENCE_BEFORE_TRAINING, _LONGEST_PATIENCE = 0.5, 10.0
_PATIENCE_PER_SECOND = 0.1  # of training

UserMetric = Callable[[Path, Dataset], float]
"""A metric of the user's: the exported file, and the data set without its test split, in; a number out."""


@dataclass(frozen=True)
class LatencySettings:
    """How a file is run: images a call, threads, and the runtime (one of `evaluators.RUNTIMES`)."""

    batch: int = 1
    threads: int = 1
    runtime: str = "onnxruntime"


class Architectures(Protocol):
    """What builds networks: a `search_spaces.ModelSpace`, or a `search_spaces.FixedModel`."""

    def build(self, architecture: Mapping[str, Any], seed: int) -> nn.Module:
        """(N, C, H, W) float32 -> (N, num_classes) logits, with weights drawn from `seed`."""


class Learning(Protocol):
    """How a network gets weights that are worth a score."""

    def __call__(self, network: Network, task: Task, training: ImageTraining) -> Network:
        """A copy of `network`, which its space has just built for `task`, with such weights."""


def trained(network: Network, task: Task, training: ImageTraining) -> Network:
    """Learning by training, for as many epochs as the task's fidelity says."""
    return training.fit(network, epochs=task.fidelity)


@dataclass
class NetworkEvaluator:
    """Evaluates candidates on a data set.

    Metrics: ``val_accuracy`` (of the exported file), ``val_images``, ``latency_ms`` with its interval and what
    else `Latency.metrics` says, ``latency_alone`` (1 if nothing else of ours computed while it was measured),
    ``parity_error`` (see `check_parity`), ``size_kib``, ``params``, ``macs``, ``training_seconds``, ``packed_kib``
    (see `compression.pack`) where there is a packed form that no runtime executes, and those of the user. A task that
    starts from another's network also gets ``start_latency_ms`` and the like: the file it started from, measured in
    turns with the new one.

    Attributes:
        space: builds the networks.
        data_directory: a data set saved there, without its test split.
        training, latency: how candidates are trained and measured.
        metrics: further metrics by name.
        learn: gives a new network its weights.
    """

    space: Architectures
    data_directory: Path
    training: TrainingSettings = field(default_factory=TrainingSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    metrics: Mapping[str, UserMetric] = field(default_factory=dict)
    learn: Learning = trained

    def __post_init__(self) -> None:
        self._data: Dataset | None = None
        self._meter = Meter()

    def __getstate__(self) -> dict[str, object]:
        state = dict(vars(self))
        return {**state, "_data": None, "_meter": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._meter = Meter()

    @property
    def data(self) -> Dataset:
        """The data set, mapped from disk at first use."""
        if self._data is None:
            self._data = Dataset.load(self.data_directory)
        return self._data

    def evaluate(self, task: Task, *, report: Report) -> Outcome:
        """Train `task`'s architecture or load its start, apply what is left of the recipe, export, score."""
        with self._meter.computing():
            started = time.perf_counter()
            recipe = task.candidate.recipe
            training = ImageTraining(
                self.data, self.training, task.seed, on_epoch=report, meter=self._meter,
                checkpoint=task.directory / CHECKPOINT,
            )  # fmt: skip
            if task.start is None:
                network = Network(self.space.build(task.candidate.architecture, task.seed).eval())
                known = self._before_training(network, task.directory, training)
                if not report(0, known):
                    return Outcome(known)
                try:
                    network = self.learn(network, task, training)
                except StoppedEarly:
                    return Outcome(known)
            else:
                network = self._load(task, task.start)
                recipe = compression.remainder(recipe, task.start.recipe)
            if recipe:
                origin = task.seed if task.start is None else task.start.seed
                teachers = {"parent": network}
                if task.teacher is not None:
                    teachers["best"] = self._load(task, task.teacher)
                tuning = ImageTraining(
                    self.data, self.training, task.seed, task.fidelity, teachers, report, self._meter,
                    initial=lambda: self.space.build(task.candidate.architecture, origin),
                    latency=lambda network: self._latency(network, task.directory, training),
                    checkpoint=task.directory / CHECKPOINT,
                )  # fmt: skip
                try:
                    network = compression.apply(recipe, network, tuning)
                except StoppedEarly:
                    return Outcome({})
            seconds = time.perf_counter() - started
            network.save(task.directory)
            metrics = self._score(network, task, training, _patience(seconds))
        metrics["training_seconds"] = seconds
        wrong = finite(metrics)
        if wrong is not None:
            raise SlimsearchError(f"metric '{wrong}' is {metrics[wrong]}")
        # What a later stage of compression starts from, and is compared with.
        artifacts = {
            "model": MODEL, "predictions": PREDICTIONS, "network": "network.json", "weights": "weights.safetensors"
        }  # fmt: skip
        return Outcome(metrics, {**artifacts, "packed": PACKED} if "packed_kib" in metrics else artifacts)

    def _load(self, task: Task, artifact: Artifact) -> Network:
        return Network.load(self.space.build(artifact.architecture, task.seed), artifact.directory)

    def _before_training(self, network: Network, directory: Path, training: ImageTraining) -> dict[str, float]:
        """What the file will weigh and how long it will run does not depend on what it learns."""
        path = directory / "untrained.onnx"
        compression.export(network, path, training.calibration)
        try:
            return {"size_kib": size_kib(path), **self._quick_latency(path).metrics(), **self._costs(network)}
        finally:
            path.unlink(missing_ok=True)

    def _latency(self, network: Network, directory: Path, training: ImageTraining) -> float:
        """For a stage that looks for the network that is fast enough."""
        path = directory / "trial.onnx"
        compression.export(network, path, training.calibration)
        try:
            return self._quick_latency(path).median_ms
        finally:
            path.unlink(missing_ok=True)

    def _quick_latency(self, path: Path) -> Latency:
        with self._meter.exclusive():
            return self._measured([path], blocks=_BLOCKS_BEFORE_TRAINING, patience=_PATIENCE_BEFORE_TRAINING)[0]

    def _measured(self, paths: list[Path], **effort: Any) -> list[Latency]:
        how = self.latency
        return measure_latency(
            paths, self.data.input_shape, batch=how.batch, threads=how.threads, runtime=how.runtime, **effort
        )

    def _example(self) -> torch.Tensor:
        import torch

        return torch.zeros(1, *self.data.input_shape)

    def _costs(self, network: Network) -> dict[str, float]:
        return {"params": float(network.params), "macs": float(network.macs(self._example()))}

    def _score(self, network: Network, task: Task, training: ImageTraining, patience: float) -> dict[str, float]:
        path, data = task.directory / MODEL, self.data
        compression.export(network, path, training.calibration, data.metadata())
        model = DeployedModel(path, runtime=self.latency.runtime)
        parity = check_parity(network, model, data)
        self._meter.pause_if_measuring()
        predictions = model.predict(data, data.validation)
        _save_predictions(predictions, data.validation.labels, task.directory / PREDICTIONS)
        files = [path] if task.start is None else [path, task.start.directory / MODEL]
        with self._meter.exclusive() as alone:
            latencies = self._measured(files, patience=patience)
        metrics = {
            "val_accuracy": float((predictions == data.validation.labels).mean()),
            "val_images": float(len(data.validation)),
            **latencies[0].metrics(),
            "latency_alone": float(alone),
            "parity_error": parity,
            "size_kib": size_kib(path),
            **self._costs(network),
        }
        packed = compression.pack(network)
        if packed is not None:
            (task.directory / PACKED).write_bytes(packed)
            metrics["packed_kib"] = len(packed) / 1024
        if task.start is not None:
            metrics.update(latencies[1].metrics("start_"))
        for name, function in self.metrics.items():
            metrics[name] = float(function(path, data))
        return metrics


def _patience(seconds: float) -> float:
    return min(_LONGEST_PATIENCE, _PATIENCE_BEFORE_TRAINING + _PATIENCE_PER_SECOND * seconds)


def load_predictions(directory: Path) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The class that a trial's file gave to each validation image, (N,).

    Raises:
        SlimsearchError: they are missing or damaged.
    """
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = _load(directory, "validation")
    return found


def load_right(directory: Path) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether a trial's file classified each validation image rightly, (N,).

    Raises:
        SlimsearchError: that is missing or damaged.
    """
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = _load(directory, "right").astype(np.bool_)
    return found


def _load(directory: Path, name: str) -> Any:
    from safetensors.numpy import load_file

    try:
        return load_file(directory / PREDICTIONS)[name]
    except Exception as error:  # safetensors and the file system each have their own
        raise SlimsearchError(f"cannot read the predictions in '{directory}': {error}") from error


def _save_predictions(
    predictions: np.ndarray[tuple[int], np.dtype[np.int64]], labels: np.ndarray[Any, np.dtype[Any]], path: Path
) -> None:
    from safetensors.numpy import save_file

    part = path.with_suffix(".part")
    save_file({"validation": predictions, "right": (predictions == labels).astype(np.uint8)}, part)
    part.replace(path)
