"""The evaluator of the project: trains or compresses a network, exports it, and scores the file."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators._kept_networks import KeptNetworks
from slimsearch.evaluators._rehearsal import Rehearsal
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.deployed.deployed_model import DeployedModel, size_kib
from slimsearch.evaluators.deployed.parity import check_parity
from slimsearch.evaluators.latency.measurement import Latency, measure_latency
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.latency.predictor import LatencyPredictor
from slimsearch.evaluators.objective import finite
from slimsearch.evaluators.task import Artifact, Outcome, Report, Task
from slimsearch.evaluators.training.image_training import ImageTraining, StoppedEarly, TrainingSettings
from slimsearch.evaluators.training.inheritance import inherit
from slimsearch.files import atomic

if TYPE_CHECKING:
    import torch
    from torch import nn

MODEL, PREDICTIONS, PACKED = "model.onnx", "predictions.safetensors", "packed.bin"
CHECKPOINT = "training.pt"
IMPORTS = "slimsearch.evaluators._imports"
"""A module that imports all that a process needs which evaluates networks."""

_BLOCKS_BEFORE_TRAINING = 6
# Seconds to wait for calm: of somebody else's work on the machine a search should not become much longer.
_PATIENCE_BEFORE_TRAINING, _LONGEST_PATIENCE = 0.1, 10.0
_PATIENCE_PER_SECOND = 0.1  # of training

UserMetric = Callable[[Path, Dataset], float]
"""A metric of the user's: the exported file, and the data set without its test split, in; a number out."""


@dataclass(frozen=True)
class LatencySettings:
    """How a file is run, and how its latency is known.

    Attributes:
        batch: images a call.
        threads: that compute it.
        runtime: one of `slimsearch.evaluators.RUNTIMES`.
        how: "measured"; "predicted", with `LatencyPredictor`; or "auto", measured unless others of ours that compute
            here do not pause.
    """

    batch: int = 1
    threads: int = 1
    runtime: str = "onnxruntime"
    how: str = "auto"


class Architectures(Protocol):
    """What builds networks: a `slimsearch.search_spaces.ModelSpace`, or a `slimsearch.search_spaces.FixedModel`."""

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
    else `Latency.metrics` says, ``latency_alone`` (1 if nothing else of ours computed while it was measured)
    or ``latency_predicted`` (1),
    ``parity_error`` (see `check_parity`), ``size_kib``, ``params``, ``macs``, ``training_seconds``, ``packed_kib``
    (see `pack`) where there is a packed form that no runtime executes, and those of the user. A task that
    starts from another's network also gets ``start_latency_ms`` and the like: the file it started from, measured in
    turns with the new one; ``inherited_share``: share of the parameters that began as those of ``--init``.

    Attributes:
        space: builds the networks.
        data_directory: a data set saved there, without its test split.
        training, latency: how candidates are trained and measured.
        metrics: further metrics by name.
        learn: gives a new network its weights.
        kept: a folder for networks that several candidates go through, so that each is made once; None: each candidate
            is made from the start. What is kept depends on the task's seed: candidates share what they have in common
            only where they have one seed.
        initial: weights that every network begins with as far as they fit, as safetensors.
    """

    space: Architectures
    data_directory: Path
    training: TrainingSettings = field(default_factory=TrainingSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    metrics: Mapping[str, UserMetric] = field(default_factory=dict)
    learn: Learning = trained
    kept: Path | None = None
    initial: bytes | None = None

    def __post_init__(self) -> None:
        self._data: Dataset | None = None
        self._meter = Meter()
        self._predictor: LatencyPredictor | None = None

    def __getstate__(self) -> dict[str, object]:
        state = dict(vars(self))
        return {**state, "_data": None, "_meter": None, "_predictor": None}

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
            settings = replace(self.training, **task.candidate.training)
            report = _Counting(report)
            training = ImageTraining(
                self.data, settings, task.seed, on_epoch=report, meter=self._meter,
                checkpoint=task.directory / CHECKPOINT,
            )  # fmt: skip
            kept = None if self.kept is None else KeptNetworks(self.kept, self._meter)
            inherited: dict[str, float] = {}
            if task.start is None:
                module, share = self._begun(task.candidate.architecture, task.seed)
                network = Network(module.eval())
                if self.initial is not None:
                    inherited["inherited_share"] = share
                known, go_on = self._before_training(network, task, training, report)
                if not go_on:
                    return Outcome(known)
            try:
                if task.start is None:
                    parent = network
                    network = self._made(kept, task, {}, lambda: self.learn(parent, task, training))
                else:
                    network = self._load(task, task.start)
                network = self._compressed(network, task, settings, report, training, kept)
            except StoppedEarly:
                return Outcome(known if task.start is None else {})
            seconds = time.perf_counter() - started
            network.save(task.directory)
            metrics = self._score(network, task, training, _patience(seconds))
        if kept is not None:
            metrics["seconds_saved"] = kept.seconds_saved
        metrics |= {"training_seconds": seconds, **inherited}
        wrong = finite(metrics)
        if wrong is not None:
            raise SlimsearchError(f"metric '{wrong}' is {metrics[wrong]}")
        # What a later stage of compression starts from, and is compared with.
        artifacts = {
            "model": MODEL, "predictions": PREDICTIONS, "network": "network.json", "weights": "weights.safetensors"
        }  # fmt: skip
        return Outcome(metrics, {**artifacts, "packed": PACKED} if "packed_kib" in metrics else artifacts)

    def _fresh(self, task: Task) -> nn.Module:
        return self._begun(task.candidate.architecture, task.seed)[0].eval()

    def _begun(self, architecture: Mapping[str, Any], seed: int) -> tuple[nn.Module, float]:
        """A network before it is trained, and the share of its parameters that are those of `initial`."""
        module = self.space.build(architecture, seed)
        if self.initial is None:
            return module, 0.0
        from safetensors.torch import load

        return module, inherit(module, load(self.initial))

    def _made(
        self, kept: KeptNetworks | None, task: Task, recipe: compression.PlainRecipe, make: Callable[[], Network]
    ) -> Network:
        """What `make` gives for so much of the task's recipe, from what is kept if it is there."""
        if kept is None:
            return make()
        candidate = task.candidate
        depends_on = {
            "architecture": dict(candidate.architecture), "training": dict(candidate.training), "seed": task.seed,
            "epochs": task.fidelity, "recipe": [[stage, dict(options)] for stage, options in recipe.items()],
        }  # fmt: skip
        return kept.get(depends_on, lambda: self._fresh(task), make)

    def _compressed(
        self, network: Network, task: Task, settings: TrainingSettings, report: Report, training: ImageTraining,
        kept: KeptNetworks | None,
    ) -> Network:  # fmt: skip
        """`network` after what is left of the recipe, one group of stages after the other."""
        done = {} if task.start is None else dict(task.start.recipe)
        recipe = compression.Recipe.from_dict(task.candidate.recipe)
        remainder = recipe.remainder(compression.Recipe.from_dict(done))
        if not remainder:
            return network
        origin = task.seed if task.start is None else task.start.seed
        teachers = {"parent": network}
        if task.teacher is not None:
            teachers["best"] = self._load(task, task.teacher)
        tuning = ImageTraining(
            self.data, settings, task.seed, task.fidelity, teachers, report, self._meter,
            initial=lambda: self._begun(task.candidate.architecture, origin)[0],
            latency=lambda network: self._latency(network, task.directory, training),
            checkpoint=task.directory / CHECKPOINT,
        )  # fmt: skip
        for group in remainder.groups:
            done = {**done, **group.to_dict()}
            network = self._made(kept, task, done, functools.partial(group.apply, network, tuning))
        return network

    def _load(self, task: Task, artifact: Artifact) -> Network:
        return Network.load(self.space.build(artifact.architecture, task.seed), artifact.directory)

    def _before_training(
        self, network: Network, task: Task, training: ImageTraining, report: Report
    ) -> tuple[dict[str, float], bool]:
        """What the file will weigh and how long it will run does not depend on what it learns; and whether to go on.

        What takes no time is reported before what is measured. A recipe is applied without training; where that does
        not do, nothing is known.
        """
        path = task.directory / "untrained.onnx"
        if task.candidate.recipe:
            rehearsal = Rehearsal(
                self.data, self.training, task.seed, task.fidelity, {"parent": network}, meter=self._meter,
                initial=network.copy_module,
                latency=lambda network: self._latency(network, task.directory, training),
            )  # fmt: skip
            try:
                network = compression.Recipe.from_dict(task.candidate.recipe).apply(network, rehearsal)
            except SlimsearchError:
                return {}, report(0, {})
        compression.export_onnx(network, path, training.calibration)
        try:
            known = {"size_kib": size_kib(path), **self._costs(network)}
            if not report(0, known):
                return known, False
            known |= self._quick_latency(path).metrics()
            return known, report(0, known)
        finally:
            path.unlink(missing_ok=True)

    def _latency(self, network: Network, directory: Path, training: ImageTraining) -> float:
        """For a stage that looks for the network that is fast enough."""
        path = directory / "trial.onnx"
        compression.export_onnx(network, path, training.calibration)
        try:
            return self._quick_latency(path).median_ms
        finally:
            path.unlink(missing_ok=True)

    def _quick_latency(self, path: Path) -> Latency:
        return self._latencies([path], _PATIENCE_BEFORE_TRAINING, blocks=_BLOCKS_BEFORE_TRAINING)[0][0]

    def _latencies(self, paths: list[Path], patience: float, **effort: int) -> tuple[list[Latency], dict[str, float]]:
        """Of files, in turns; and how they came to be known."""
        how = self.latency
        if how.how == "predicted":
            return self._predicted(paths), {"latency_predicted": 1.0}
        with self._meter.exclusive() as alone:
            # Beside somebody who does not pause a prediction counts, and there is no calm to wait for.
            predicted = not alone and how.how == "auto" and how.runtime == "onnxruntime"
            found = measure_latency(
                paths, self.data.input_shape, batch=how.batch, threads=how.threads, runtime=how.runtime,
                patience=0.0 if predicted else patience, **effort,
            )  # fmt: skip
        if predicted:
            return self._predicted(paths), {"latency_predicted": 1.0, "latency_measured_ms": found[0].median_ms}
        if self._predictor is not None:
            for path, latency in zip(paths, found, strict=True):
                if latency.calm:
                    self._predictor.correct(path, latency.median_ms)
        return found, {"latency_alone": float(alone)}

    def _predicted(self, paths: list[Path]) -> list[Latency]:
        if self._predictor is None:
            self._predictor = LatencyPredictor(self.latency.batch, self.latency.threads, meter=self._meter)
        return [Latency.predicted(self._predictor.predict(path).ms) for path in paths]

    def _example(self) -> torch.Tensor:
        import torch

        return torch.zeros(1, *self.data.input_shape)

    def _costs(self, network: Network) -> dict[str, float]:
        return {"params": float(network.params), "macs": float(network.macs(self._example()))}

    def _score(self, network: Network, task: Task, training: ImageTraining, patience: float) -> dict[str, float]:
        path, data = task.directory / MODEL, self.data
        compression.export_onnx(network, path, training.calibration, data.metadata())
        model = DeployedModel(path, runtime=self.latency.runtime)
        parity = check_parity(network, model, data)
        self._meter.pause_if_measuring()
        predictions = model.predict(data, data.validation)
        _save_predictions(predictions, data.validation.labels, task.directory / PREDICTIONS)
        files = [path] if task.start is None else [path, task.start.directory / MODEL]
        latencies, known_by = self._latencies(files, patience)
        metrics = {
            "val_accuracy": float((predictions == data.validation.labels).mean()),
            "val_images": float(len(data.validation)),
            **latencies[0].metrics(),
            **known_by,
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


class _Counting:
    """Tells of one training's epochs after the other's, counted on."""

    def __init__(self, report: Report) -> None:
        self._report, self._before, self._last = report, 0, 0

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        if 0 < epoch <= self._last:
            self._before += self._last
        self._last = epoch
        return self._report(self._before + epoch, metrics)


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

    with atomic(path) as temporary:
        save_file({"validation": predictions, "right": (predictions == labels).astype(np.uint8)}, temporary)
