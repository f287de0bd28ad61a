"""Evaluation of networks: training, compression, export, and scores of the exported file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cloudpickle
import numpy as np

from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError, described, reason
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.deployed.deployed_model import DeployedModel, check_parity, onnx_of, outputs_of, size_kib
from slimsearch.evaluators.deployed.statistics import scores
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.network_pipeline import FileLatencies, LatencySettings, NetworkPipeline
from slimsearch.evaluators.objective import finite_numbers
from slimsearch.evaluators.task import Artifact, Outcome, ReportEpoch, Task
from slimsearch.evaluators.tasks import Classification, LearningTask, OwnScore
from slimsearch.evaluators.training.function_training import Fit
from slimsearch.evaluators.training.hardware import memory_errors
from slimsearch.evaluators.training.network_training import NetworkTraining, StoppedEarly, TrainingSettings
from slimsearch.evaluators.training.reuse import NetworkCache, copy_matching_weights
from slimsearch.files import atomic

if TYPE_CHECKING:
    import torch
    from torch import nn

PREDICTIONS, PACKED = "predictions.safetensors", "packed.bin"
MODEL = "model.onnx"
"""Name of the ONNX file in the directory of a trial, which is the exported file if the runtime reads it."""
CHECKPOINT = "training.pt"
"""Name of the checkpoint of an unfinished training in the directory of a trial."""
IMPORTS = "slimsearch.evaluators._imports"
"""Name of a module whose import loads all libraries for the evaluation of networks."""

# Seconds to wait for a calm machine, short compared with the training.
_MIN_PATIENCE, _MAX_PATIENCE = 0.1, 10.0
_PATIENCE_PER_SECOND = 0.1  # of training

_PRUNED = {"share": "removed", "asked": "asked"}

Array = np.ndarray[Any, np.dtype[Any]]

UserMetric = Callable[[Path, Dataset], float]
"""A user's metric: a function of the exported file and the data set (without test split) that returns a number."""


class Architectures(Protocol):
    """Builds networks: a `slimsearch.search_spaces.ModelSpace` or `slimsearch.search_spaces.FixedModel`."""

    def build(self, architecture: Mapping[str, Any], seed: int) -> nn.Module:
        """A network (N, ...) float32 -> (N, ...) outputs, such as logits, with weights initialized from `seed`."""


class Learning(Protocol):
    """Gives a new network its weights."""

    def __call__(self, network: Network, task: Task, training: NetworkTraining) -> Network:
        """A copy of the untrained `network` of `task`, with weights."""


def learn_by_training(network: Network, task: Task, training: NetworkTraining) -> Network:
    """Train for the epochs of the task's fidelity."""
    return training.fit(network, epochs=task.fidelity)


@dataclass(frozen=True)
class Given:
    """What is known about a trained network that a run was given.

    Attributes:
        initial: builds the module with the weights that its training began with; None: unknown.
        teacher: the network for ``teacher=best``; None: the most accurate one of the run.
        elastic: gives the network its architecture; None: architectures are empty.
    """

    initial: Callable[[], nn.Module] | None = None
    teacher: Network | None = None
    elastic: compression.ElasticNetwork | None = None


@dataclass
class NetworkEvaluator:
    """Evaluates candidates on a data set.

    Metrics:

    - those of the data set's task, such as ``val_accuracy``, of the exported file on ``val_images`` examples;
      ``parity_error``, see `check_parity`; with a score function, that of the network in PyTorch, such as
      ``network_score``;
    - ``latency_ms`` and the others of `Latency.metrics`; ``latency_alone``: 1 if all other processes of Slimsearch
      paused during the measurement; ``latency_predicted``: 1 if it is predicted; ``latency_board``: number of the board
      that measured it; ``latency_away``: 1 if it is predicted since no board answered;
    - ``size_kib``, ``params``, ``macs``; ``packed_kib`` for networks with a packed form that no runtime executes, see
      `pack`; ``channels_removed`` and ``channels_asked`` of pruned networks, shares of all channels;
    - ``ram_kib`` and ``flash_kib`` of the C file, see `compression.memory_kib`, if asked for;
    - ``training_seconds``, of training alone; ``seconds_saved`` by the cache;
    - ``start_latency_ms`` and others for a task with a start: the latency of its file, measured together with the new
      one;
    - ``inherited_share``: share of the parameters copied from ``--init``;
    - those of the user.

    Attributes:
        space: builds the networks.
        data_directory: of a data set saved without its test split.
        training, latency: settings.
        metrics: the user's metrics by name.
        learn: gives a new network its weights.
        cache: folder for trained and partly compressed networks that several candidates with one seed have in common;
            None: no cache.
        initial: initial weights, copied as far as their shapes match; safetensors.
        memory: whether ``ram_kib`` and ``flash_kib`` are computed.
        given: the networks of `space` are trained already; here, those with an architecture of their own are trained
            further, classifiers towards the outputs of the given one; None: they are not trained.
        task: what is learned, fitted to the data set.
        fit: a function of the user's that trains networks; None: Slimsearch does.
    """

    space: Architectures
    data_directory: Path
    training: TrainingSettings = field(default_factory=TrainingSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    metrics: Mapping[str, UserMetric] = field(default_factory=dict)
    learn: Learning = learn_by_training
    cache: Path | None = None
    initial: bytes | None = None
    memory: bool = False
    given: Given | None = None
    task: LearningTask = field(default_factory=Classification)
    fit: Fit | None = None

    def __post_init__(self) -> None:
        self._data: Dataset | None = None
        self._meter = Meter()
        self._latencies = FileLatencies(self.latency, self._meter)

    def __getstate__(self) -> dict[str, object]:
        # By value, since other processes cannot import a class or function from a notebook, a script or a file.
        own = cloudpickle.dumps((self.task, self.fit))
        return {**vars(self), "task": own, "fit": None, "_data": None, "_meter": None, "_latencies": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        task, fit = cloudpickle.loads(state["task"])
        vars(self).update({**state, "task": task, "fit": fit})
        self._meter = Meter()
        self._latencies = FileLatencies(self.latency, self._meter)

    @property
    def data(self) -> Dataset:
        """The data set, memory-mapped at first use."""
        if self._data is None:
            self._data = Dataset.load(self.data_directory, self.task)
        return self._data

    def evaluate(self, task: Task, *, report: ReportEpoch) -> Outcome:
        """Train the architecture of `task` or load its start, apply the rest of the recipe, export and score."""
        self._meter.owner = str(task.directory)
        with memory_errors(), self._meter.computing():
            started, trained = time.perf_counter(), self._meter.training_seconds
            epochs = _ContinuousEpochs(report)
            pipeline = NetworkPipeline(
                self.data, replace(self.training, **task.candidate.training), task.seed, task.fidelity, self._meter,
                self._latencies, epochs, task.directory / CHECKPOINT, task.directory, self.fit,
            )  # fmt: skip
            cache = None if self.cache is None else NetworkCache(self.cache, self._meter)
            training = pipeline.network_training()
            making = _Making(task, pipeline, training, epochs, cache)
            known, inherited, rehearsed = dict[str, float](), dict[str, float](), True
            if task.start is None:
                module, share = self._initialized(task.candidate.architecture, task.seed)
                network = Network(module.eval())
                if self.given is not None and self.given.elastic is not None:
                    network = self.given.elastic.apply(network, task.candidate.architecture)
                if self.initial is not None:
                    inherited["inherited_share"] = share
                rehearsed = not self._is_trained(cache, task)
                if rehearsed:
                    training.check(network)
                    known, continues = self._before_training(network, task, pipeline, report)
                    if not continues:
                        return Outcome(known)
            try:
                network = self._trained(network, making) if task.start is None else self._load(task, task.start)
                network = self._compressed(network, making)
            except StoppedEarly:
                return Outcome(known)
            patience = _patience(time.perf_counter() - started)
            network.save(task.directory)
            # Nothing was trained: the file itself shows whether the candidate is ruled out.
            # A given network itself is scored whatever its costs, to compare others with it.
            candidate = task.candidate
            silent = rehearsed or (self.given is not None and not candidate.recipe and not candidate.architecture)
            metrics, continues = self._score(network, task, pipeline, patience, _no_report if silent else report)
            if not continues:
                return Outcome(metrics)
        if cache is not None:
            metrics["seconds_saved"] = cache.seconds_saved
        seconds = self._meter.training_seconds - trained
        metrics |= {"training_seconds": seconds, **inherited}
        # A later compression stage starts from these files, and is compared with them.
        artifacts = {
            "model": self._model, "predictions": PREDICTIONS, "network": "network.json",
            "weights": "weights.safetensors", **({} if self._model == MODEL else {"onnx": MODEL}),
        }  # fmt: skip
        return Outcome(
            finite_numbers(metrics), {**artifacts, "packed": PACKED} if "packed_kib" in metrics else artifacts
        )

    @property
    def _model(self) -> str:
        """Name of the exported file."""
        return str(Path(MODEL).with_suffix(self.latency.suffix))

    def _initialized(self, architecture: Mapping[str, Any], seed: int) -> tuple[nn.Module, float]:
        """An untrained network, and the share of its parameters that comes from `initial`."""
        with described("the network cannot be built"):
            module = self.space.build(architecture, seed)
        if self.initial is None:
            return module, 0.0
        from safetensors.torch import load

        return module, copy_matching_weights(module, load(self.initial))

    def _trained(self, network: Network, making: _Making) -> Network:
        """The trained `network` of a task without a start."""
        task = making.task
        if self.given is not None and not task.candidate.architecture:
            return network
        if self.given is not None and self.fit is None and making.training.gives_logits:
            distillation = compression.Recipe.parse("distill")
            teachers = {"parent": Network(self.space.build({}, task.seed).eval())}
            return self._cached(
                making, {}, lambda: making.pipeline.compress(network, distillation, teachers=teachers, initial=None)
            )
        return self._cached(making, {}, lambda: self.learn(network, task, making.training))

    def _cached(self, making: _Making, recipe: compression.PlainRecipe, make: Callable[[], Network]) -> Network:
        """The task's network after the stages of `recipe`, from the cache or from `make`."""
        architecture, seed, epochs = making.task.candidate.architecture, making.task.seed, making.epochs
        before = epochs.done

        def counted() -> tuple[Network, int]:
            return make(), epochs.done - before

        if making.cache is None:
            network, count = counted()
        else:
            depends_on = _depends_on(making.task, recipe)
            network, count = making.cache.get(
                depends_on, lambda: self._initialized(architecture, seed)[0].eval(), counted
            )
        epochs.pass_to(before + count)
        return network

    def _is_trained(self, cache: NetworkCache | None, task: Task) -> bool:
        """Whether the network of the task after the last stage with training is given or in the cache."""
        trained: dict[str, Mapping[str, Any]] = {}
        stages: dict[str, Mapping[str, Any]] = {}
        for group, trainings in compression.Recipe.from_dict(task.candidate.recipe).steps(task.fidelity):
            stages |= group.to_dict()
            if trainings > 0:
                trained = dict(stages)
        if self.given is not None and not trained and not task.candidate.architecture:
            return True
        return cache is not None and _depends_on(task, trained) in cache

    def _compressed(self, network: Network, making: _Making) -> Network:
        """`network` after the remaining groups of stages of the recipe."""
        task = making.task
        done = {} if task.start is None else dict(task.start.recipe)
        remainder = compression.Recipe.from_dict(task.candidate.recipe).remainder(compression.Recipe.from_dict(done))
        if not remainder:
            return network
        origin = task.seed if task.start is None else task.start.seed
        teachers = {"parent": network}
        if self.given is not None and self.given.elastic is not None:
            teachers["parent"] = Network(self.space.build({}, origin).eval())
        if self.given is not None and self.given.teacher is not None:
            teachers["best"] = self.given.teacher
        elif task.teacher is not None:
            teachers["best"] = self._load(task, task.teacher)
        return making.pipeline.compress(
            network,
            remainder,
            teachers=teachers,
            initial=(
                (lambda: self._initialized(task.candidate.architecture, origin)[0])
                if self.given is None
                else self.given.initial
            ),
            cached=lambda recipe, make: self._cached(making, {**done, **recipe.to_dict()}, make),
        )

    def _load(self, task: Task, artifact: Artifact) -> Network:
        return Network.load(self.space.build(artifact.architecture, task.seed), artifact.directory)

    def _before_training(
        self, network: Network, task: Task, pipeline: NetworkPipeline, report: ReportEpoch
    ) -> tuple[dict[str, float], bool]:
        """Metrics that do not depend on training (size, MACs, latency), and whether the evaluation continues.

        Size and MACs are reported before latency is measured, if it may end the trial. The recipe is applied without
        training; no metrics are known if that fails.
        """
        if task.candidate.recipe:
            try:
                network = pipeline.dry_run(network, compression.Recipe.from_dict(task.candidate.recipe))
            except SlimsearchError:
                return {}, report(0, {})
        with pipeline.exported(network) as path:
            known = {**self._file_costs(path), **self._costs(network)}
            if not report(0, known):
                return known, False
            if not self.latency.early:
                return known, True
            known |= self._latencies.quick(path, self.data.input_shape).metrics()
            return known, report(0, known)

    def _example(self) -> torch.Tensor:
        import torch

        return torch.zeros(1, *self.data.input_shape)

    def _file_costs(self, path: Path) -> dict[str, float]:
        return {"size_kib": size_kib(path), **(compression.memory_kib(onnx_of(path)) if self.memory else {})}

    def _costs(self, network: Network) -> dict[str, float]:
        network = network.without_dead_taps(self.data.input_shape)  # as its file
        return {"params": float(network.params), "macs": float(network.macs(self._example()))}

    def _score(
        self, network: Network, task: Task, pipeline: NetworkPipeline, patience: float, report: ReportEpoch
    ) -> tuple[dict[str, float], bool]:
        """The metrics of the exported file, and whether the evaluation continued to its end.

        Reports the costs of the file as metrics before training.
        """
        path, data = pipeline.export(network, task.directory / self._model), self.data
        known = {**self._file_costs(path), **self._costs(network)}
        if not report(0, known):
            return known, False
        files = [path] if task.start is None else [path, task.start.directory / self._model]
        latencies, latency_source = self._latencies.of(files, data.input_shape, patience)
        known |= latencies[0].metrics()
        if not report(0, known):
            return known, False
        model = DeployedModel(path, runtime=self.latency.runtime)
        parity = check_parity(network, path, model, data, lambda: pipeline.network_training().calibration)
        self._meter.pause_if_measuring()
        examples = model.examples(data, data.validation)
        _save_examples(examples[:, : data.task.paired], task.directory / PREDICTIONS)
        metrics = {
            **scores(data.task, examples, "val"),
            **({"val_images": float(len(examples))} if len(examples) > 1 else {}),
            **known,
            **latency_source,
            "parity_error": parity,
        }
        if isinstance(data.task, OwnScore):
            leading = data.task.leading()[0]
            of_network = data.task.measured(outputs_of(network), data, data.validation)
            metrics[f"network_{leading}"] = data.task.leading_value(of_network)
        pruned = network.structure.get("pruned", {})
        metrics |= {f"channels_{label}": pruned[key] for key, label in _PRUNED.items() if key in pruned}
        packed = compression.pack(network)
        if packed is not None:
            (task.directory / PACKED).write_bytes(packed)
            metrics["packed_kib"] = len(packed) / 1024
        if task.start is not None:
            metrics.update(latencies[1].metrics("start_"))
        for name, function in self.metrics.items():
            with described(f"metric '{name}' failed"):
                metrics[name] = float(function(path, data))
        return metrics, True


def _no_report(epoch: int, metrics: Mapping[str, float]) -> bool:
    return True


def _depends_on(task: Task, recipe: compression.PlainRecipe) -> dict[str, Any]:
    """What determines the task's network after the stages of `recipe`, for `NetworkCache.get`."""
    candidate = task.candidate
    return {
        "architecture": dict(candidate.architecture), "training": dict(candidate.training), "seed": task.seed,
        "epochs": task.fidelity, "recipe": [[stage, dict(options)] for stage, options in recipe.items()],
    }  # fmt: skip


class _ContinuousEpochs:
    """Reports the epochs of successive trainings under continuous numbers."""

    def __init__(self, report: ReportEpoch) -> None:
        self._report, self._before, self._last = report, 0, 0

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        if 0 < epoch <= self._last:
            self.pass_to(self.done)
        self._last = epoch
        return self._report(self._before + epoch, metrics)

    @property
    def done(self) -> int:
        """Epochs of all trainings so far."""
        return self._before + self._last

    def pass_to(self, done: int) -> None:
        """A training has ended, here or in another trial, after `done` epochs in all."""
        self._before, self._last = done, 0


@dataclass(frozen=True)
class _Making:
    """What the network of a task is made with.

    Attributes:
        task: the task.
        pipeline: trains and compresses.
        training: of the architecture, before its compression.
        epochs: counts the epochs that the pipeline reports.
        cache: networks of several candidates; None: no cache.
    """

    task: Task
    pipeline: NetworkPipeline
    training: NetworkTraining
    epochs: _ContinuousEpochs
    cache: NetworkCache | None


def _patience(seconds: float) -> float:
    return min(_MAX_PATIENCE, _MIN_PATIENCE + _PATIENCE_PER_SECOND * seconds)


def load_examples(directory: Path) -> Array:
    """What the leading metric of a trial's file on the validation split is computed from, see `LearningTask.examples`.

    (N, K); (N, 1) bool for a classification: whether each example is right.

    Raises:
        SlimsearchError: the file of predictions is missing or damaged.
    """
    found = load_arrays(directory / PREDICTIONS)
    if "examples" in found:
        return found["examples"]
    if "right" in found:  # of older runs
        return found["right"].astype(np.bool_)[:, None]
    raise SlimsearchError(f"the predictions in '{directory}' are those of another kind of trial")


def _save_examples(examples: Array, path: Path) -> None:
    of_booleans = examples.shape[1] == 1 and np.isin(examples, (0, 1)).all()
    save_arrays({"examples": examples.astype(np.bool_ if of_booleans else np.float32)}, path)


def load_arrays(path: Path) -> dict[str, Array]:
    """The arrays in a file of `save_arrays`, by name.

    Raises:
        SlimsearchError: the file is missing or damaged.
    """
    from safetensors.numpy import load_file

    try:
        found: dict[str, Array] = load_file(path)
        return found
    except Exception as error:  # safetensors and the file system raise many kinds
        raise SlimsearchError(f"cannot read the predictions in '{path}': {reason(error)}") from error


def save_arrays(arrays: Mapping[str, Array], path: Path) -> None:
    """Write arrays to a safetensors file, atomically."""
    from safetensors.numpy import save_file

    with atomic(path) as temporary:
        # safetensors writes the memory as it is, which is in another order for a transposed array.
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, temporary)
