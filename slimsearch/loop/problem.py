"""The search problem: a space and its evaluator (networks on images, a table, or a user's function)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch import compression
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import (
    COSTS,
    DIRECTIONS,
    Board,
    Evaluator,
    FunctionEvaluator,
    Given,
    LatencySettings,
    NetworkEvaluator,
    TableEvaluator,
    TrainingSettings,
    UserMetric,
    device_for,
    precision_for,
    runtime_version,
)
from slimsearch.evaluators.datasets import Dataset, is_unlabelled, load_dataset, unlabelled
from slimsearch.evaluators.latency.energy import PackageCounters
from slimsearch.evaluators.tasks import LearningTask, OwnScore, load_task
from slimsearch.evaluators.training.augmentation import Augmentation
from slimsearch.loop.given_network import GivenNetwork, normalised, prepare_given_network
from slimsearch.names import built_in_names, load_function
from slimsearch.options.configuration import (
    CHOICES,
    DEFAULT_OBJECTIVES,
    FROM_PYTHON,
    SPACE_OBJECT,
    Configuration,
    ModelKind,
    space_from_python,
)
from slimsearch.options.initial_weights import initial_weights
from slimsearch.options.recipe_choices import check_choices, recipe_choices
from slimsearch.packed import named
from slimsearch.record.environment import machine
from slimsearch.record.ranking import Ranking
from slimsearch.record.run_directory import RunDirectory
from slimsearch.runtimes import ON_ONNX, SUFFIXES
from slimsearch.search_spaces import (
    TRAINING,
    ChoiceSpace,
    FixedModel,
    JointSpace,
    ModelSpace,
    RecipeSpace,
    Space,
    Subset,
    name_of,
)

if TYPE_CHECKING:
    from torch import nn

OWN_TRAINING = ("fit", "score", "lightning")
"""Options that name a user's functions for training and scores."""
MEMORY = ("ram_kib", "flash_kib")
"""Costs of the C file, which are computed if an objective or a limit needs them."""
ENERGY = "energy_mj"
"""Energy of a call, which is measured if an objective needs it."""
_COMMON_NETWORKS = "kept"  # folder of a run directory
_BOARD_MEASUREMENTS = "board_latencies.jsonl"  # file of a run directory: see `BoardMeasurements`
_ANALYSIS = "elastic.json"  # file of a run directory: what can be left out of a given network


@dataclass(frozen=True)
class Problem:
    """The search problem of a run.

    Attributes:
        space: of the candidates.
        evaluator: constructs the evaluator for a run directory.
        networks: builds the networks of the candidates; None if only points are evaluated, or a network is given.
        metrics: possible objectives; None if only the evaluator knows them.
        costs: metrics that are known before a candidate is evaluated.
        data: the data set of networks; None for a table or function, which has no files to compress and measure.
        device, precision: of training.
        latency: threads, batch size and runtime of exported files.
        initial: hash of the weights that networks begin with, or None.
        configuration: the options, with the normalization of a given network and the size of its images; None: as they
            were.
        notes: what was assumed about a given network.
    """

    space: Space
    evaluator: Callable[[RunDirectory], Evaluator]
    metrics: tuple[str, ...] | None
    costs: tuple[str, ...]
    data: Dataset | None = None
    networks: ModelSpace | None = None
    device: str = "cpu"
    precision: str = "fp32"
    latency: LatencySettings = field(default_factory=LatencySettings)
    initial: str | None = None
    configuration: Configuration | None = None
    notes: tuple[str, ...] = ()

    def environment(self, configuration: Configuration) -> dict[str, Any]:
        """The environment of the run, to repeat it and to compare it with that of a resumed run."""
        return {
            **machine(),
            "workers": configuration.worker_count,
            "threads_per_worker": configuration.training_threads,
            "device": self.device,
            "precision": self.precision,
            **({} if self.initial is None else {"initial_weights": self.initial}),
            "seed": configuration.seed,
            "runtime": f"{runtime_version(configuration.runtime)}, CPU" if self.data is not None else None,
            "latency_batch": configuration.latency_batch,
            "latency_threads": configuration.latency_threads,
            **self._boards(),
            "choices": {choice.label: [choice.text(value) for value in choice.values] for choice in self.space.choices},
            "dataset": _described(self.data) if self.data is not None else {"name": configuration.evaluator},
        }

    def _boards(self) -> dict[str, Any]:
        boards = self.latency.boards
        return {"boards": [board.described(self.latency.runtime) for board in boards]} if boards else {}


@dataclass(frozen=True)
class GivenFromPython:
    """A trained network from Python.

    Attributes:
        module: the network.
        given: what else is known about it.
    """

    module: nn.Module
    given: Given = field(default_factory=Given)


@dataclass(frozen=True)
class PythonObjects:
    """Objects passed from Python in place of names in a configuration.

    Attributes:
        space: what `ModelSpace.load` takes, or without networks a dict of choices or a `Space`; in place of
            ``configuration.space``.
        data: arrays or a PyTorch data set, in place of ``configuration.dataset``.
        evaluate: a function from a candidate to named numbers, in place of ``configuration.evaluator``.
        build: makes the networks of a dict of choices.
        network: a trained network to compress, in place of ``configuration.model``.
        task: a `LearningTask`, in place of ``configuration.task``.
        fit, score, lightning: functions in place of those of the configuration, see `with_own_training`.
    """

    space: Any = None
    data: Any = None
    evaluate: Callable[..., Mapping[str, float]] | None = None
    build: Callable[..., Any] | None = None
    network: GivenFromPython | None = None
    task: Any = None
    fit: Callable[..., Any] | None = None
    score: Callable[..., Any] | None = None
    lightning: Callable[..., Any] | None = None

    def named_in(self, configuration: Configuration) -> Configuration:
        """The options with placeholders for these objects.

        Raises:
            SlimsearchError: `space` is not a space.
        """
        network = None if self.network is None else f"{FROM_PYTHON}:{type(self.network.module).__name__}"
        return configuration.replace(
            space=configuration.space if self.space is None else f"{FROM_PYTHON}:{_name_of_space(self.space)}",
            dataset=configuration.dataset if self.data is None else FROM_PYTHON,
            evaluator=configuration.evaluator if self.evaluate is None else FROM_PYTHON,
            model=network or configuration.model,
            task=configuration.task if self.task is None else FROM_PYTHON,
            **{name: FROM_PYTHON for name in OWN_TRAINING if getattr(self, name) is not None},
        )

    def missing(self, configuration: Configuration) -> tuple[str, str] | None:
        """Description and argument name of an object that the options need and that was not passed, or None."""
        space = space_from_python(configuration.space)
        if space is not None and self.space is None:
            return space, "space"
        if self.network is None and ModelKind.of(configuration.model or "") is ModelKind.PYTHON:
            return "a network", "model"
        if configuration.evaluator == FROM_PYTHON and self.evaluate is None:
            return "a function", "evaluate"
        if configuration.dataset == FROM_PYTHON and self.data is None:
            return "its data", "dataset"
        if configuration.task == FROM_PYTHON and self.task is None:
            return "a learning task", "task"
        for name in OWN_TRAINING:
            if getattr(configuration, name) == FROM_PYTHON and getattr(self, name) is None:
                return f"a function {name}", name
        return None


def _name_of_space(space: Any) -> str:
    if isinstance(space, Space | Mapping):
        return SPACE_OBJECT if isinstance(space, Space) else CHOICES
    if callable(space):
        return name_of(space)
    raise SlimsearchError(
        f"a space is an NNI ModelSpace class, a function define(trial), a dict of choices or a Space, not {space!r}"
    )


def prepare(
    configuration: Configuration, objects: PythonObjects, chosen: Sequence[Mapping[str, Any]] | None = None,
    run_directory: Path | None = None, boards: tuple[Board, ...] = (),
) -> Problem:  # fmt: skip
    """The problem that a configuration describes.

    Args:
        configuration: the options.
        objects: passed from Python.
        chosen: the architectures to which it is restricted; None: all.
        run_directory: of the run, which may have begun already.
        boards: that measure latency.

    Raises:
        SlimsearchError: an option is invalid.
    """
    if objects.evaluate is not None or configuration.evaluator != "network":
        return _own_evaluation(configuration, objects)
    return _networks(configuration, objects, chosen, run_directory, boards)


def _steps(recipe: compression.PlainRecipe, epochs: int) -> list[tuple[compression.PlainRecipe, float]]:
    return [(group.to_dict(), share) for group, share in compression.Recipe.from_dict(recipe).steps(epochs)]


def _networks(
    configuration: Configuration, objects: PythonObjects, chosen: Sequence[Mapping[str, Any]] | None,
    run_directory: Path | None, boards: tuple[Board, ...],
) -> Problem:  # fmt: skip
    given = None
    space: ModelSpace | FixedModel
    if configuration.model is not None:
        given = given_network(configuration, objects, run_directory)
        configuration, space, dataset = given.configuration, given.space, given.data
    else:
        space, dataset = networks(configuration, objects)
        space.check(next(space.grid()))
    # Chosen architectures are trained with the options of the run.
    own: Mapping[str, Any] = {}
    if isinstance(space, ModelSpace) and (chosen is None or configuration.search_hyperparameters):
        own = space.training
    network = objects.network
    recipes = recipe_choices(configuration, dataset, own)
    compressing = recipes is not None and recipes.compresses
    searched: Space = space if chosen is None else Subset(space, chosen)
    if recipes is not None:
        steps = functools.partial(_steps, epochs=configuration.epochs)
        searched = JointSpace(searched, recipes, steps if compressing else None)
    training = training_settings(configuration)
    latency = latency_settings(configuration, boards)
    if objects.fit is None:
        Augmentation(training.augmentation, dataset)  # checks that it is for such data
    initial = None
    if configuration.init is not None and isinstance(space, ModelSpace):
        initial = initial_weights(configuration.init, space, download=configuration.download)
    return Problem(
        searched,
        lambda directory: network_evaluator(
            configuration,
            space,
            dataset,
            directory,
            compressing=compressing,
            initial=initial,
            network=network,
            elastic=None if given is None else given.elastic,
            fit=objects.fit,
            boards=boards,
        ),
        recorded_metrics(configuration, dataset.task),
        (*COSTS, *MEMORY) if _needs(configuration, MEMORY) else COSTS,
        dataset,
        space if isinstance(space, ModelSpace) else None,
        training.device,
        training.precision,
        latency,
        _hash_of_weights(space, initial),
        None if given is None else configuration,
        () if given is None else given.notes,
    )


def _needs(configuration: Configuration, metrics: Sequence[str]) -> bool:
    """Whether an objective or a limit is about one of `metrics`."""
    ranking = Ranking.of(configuration)
    names = {*(objective.metric for objective in ranking.objectives), *(limit.metric for limit in ranking.limits)}
    return not names.isdisjoint(metrics)


def recorded_metrics(configuration: Configuration, task: LearningTask) -> tuple[str, ...]:
    """The metrics of networks, which may be objectives."""
    return (
        *(f"val_{name}" for name in task.metrics), *COSTS, *MEMORY,
        *([ENERGY] if _needs(configuration, (ENERGY,)) else []), "training_seconds",
        *user_metrics(configuration.metrics),
    )  # fmt: skip


def check_without_data(configuration: Configuration) -> None:
    """Check the options of a run of networks as far as they do not depend on the data set.

    Raises:
        SlimsearchError: a stage, a choice of recipes, a metric of the user's, the device or the runtime is invalid, or
            energy is asked for and cannot be measured.
    """
    recipe = compression.Recipe.parse(configuration.compress)
    if configuration.co_search is None:
        recipe.check()
    check_choices(configuration)
    user_metrics(configuration.metrics)
    training_settings(configuration)  # checks the device
    runtime_version(configuration.runtime)  # checks the runtime
    if not _needs(configuration, (ENERGY,)):
        return
    if configuration.device_host is not None:
        raise SlimsearchError("energy_mj is measured on this machine, not on boards: leave out --device-host")
    PackageCounters()


def _hash_of_weights(space: ModelSpace | FixedModel, initial: bytes | None) -> str | None:
    if isinstance(space, FixedModel):
        return space.fingerprint
    return None if initial is None else hashlib.sha256(initial).hexdigest()[:16]


def given_network(
    configuration: Configuration, objects: PythonObjects, run_directory: Path | None = None
) -> GivenNetwork:
    """The trained network of a configuration, with its data set.

    Raises:
        SlimsearchError: see `prepare_given_network`; or there is no such device or runtime.
    """
    training_settings(configuration)  # checks the device
    runtime_version(configuration.runtime)  # checks the runtime
    module = None if objects.network is None else objects.network.module
    analysis = None if run_directory is None else run_directory / _ANALYSIS
    given = prepare_given_network(configuration, module, lambda options: _dataset(options, objects), analysis)
    _check_single(given.data, configuration)
    return given


def _check_single(data: Dataset, configuration: Configuration) -> None:
    runtime = configuration.runtime
    if runtime in SUFFIXES and not data.metadata().keys().isdisjoint(("inputs", "outputs")):
        raise SlimsearchError(
            f"--runtime {runtime}: its files have one input and one output, and {data.name} has several; "
            f"{' and '.join(ON_ONNX)} run such files"
        )


def _described(data: Dataset) -> dict[str, Any]:
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "train": len(data.train),
        "validation": len(data.validation),
        "test": len(data.test) if data.test is not None else 0,
        "input_shape": list(data.input_shape),
        **({"notes": list(data.notes)} if data.notes else {}),
        **data.metadata(),
    }


def networks(configuration: Configuration, objects: PythonObjects) -> tuple[ModelSpace, Dataset]:
    """The space of networks and the data set of a configuration.

    Raises:
        SlimsearchError: there is no such space, data set, device or runtime.
    """
    training_settings(configuration)  # checks the device
    runtime_version(configuration.runtime)  # checks the runtime
    dataset = _dataset(configuration, objects)
    _check_single(dataset, configuration)
    return _model_space(configuration.space, objects, dataset), dataset


def network_evaluator(
    configuration: Configuration, space: ModelSpace | FixedModel, data: Dataset, directory: RunDirectory, *,
    compressing: bool, initial: bytes | None = None, network: GivenFromPython | None = None,
    elastic: compression.ElasticNetwork | None = None, fit: Callable[..., Any] | None = None,
    boards: tuple[Board, ...] = (),
) -> NetworkEvaluator:  # fmt: skip
    """The evaluator of networks; writes the data set for its workers into the run directory.

    Args:
        configuration: the options.
        space, data: see `networks`.
        directory: of the run.
        compressing: whether the search compresses its candidates, so that their common networks are stored.
        initial: see `initial_weights`.
        network: passed from Python.
        elastic: of a given network, if its architecture is searched.
        fit: a function of the user's that trains networks; None: Slimsearch does.
        boards: that measure latency.
    """
    known = Given() if network is None else network.given
    data.without_test().save(directory.scratch / "data")
    if elastic is not None:
        compression.analysis_file.write(directory.path / _ANALYSIS, elastic, compression.Network(space.build({})))
    return NetworkEvaluator(
        space,
        directory.scratch / "data",
        training_settings(configuration),
        latency_settings(configuration, boards, directory),
        user_metrics(configuration.metrics),
        cache=directory.path / _COMMON_NETWORKS if compressing else None,
        initial=initial,
        memory=_needs(configuration, MEMORY),
        given=replace(known, elastic=elastic) if isinstance(space, FixedModel) else None,
        task=data.task,
        fit=fit,
    )


def training_settings(configuration: Configuration) -> TrainingSettings:
    """The options of training.

    Raises:
        SlimsearchError: there is no such device, or trials on Ray do not ask for one.
    """
    device = _training_device(configuration)
    return TrainingSettings(
        batch_size=configuration.batch_size,
        learning_rate=configuration.learning_rate,
        warm_up=configuration.warm_up,
        weight_decay=configuration.weight_decay,
        augmentation=configuration.augment,
        epoch_images=configuration.epoch_images,
        normalise=configuration.normalise == "folded",
        device=device,
        precision=precision_for(configuration.precision, device),
        threads=configuration.training_threads,
    )


def _training_device(configuration: Configuration) -> str:
    if configuration.strategy != "ray" or configuration.device == "cpu":
        return device_for(configuration.device)
    # A worker of Ray sees the GPUs that its trial asks for, and the driver may have none.
    if configuration.gpus_per_trial > 0:
        return "cuda"
    if configuration.device == "cuda":
        raise SlimsearchError(
            "--device cuda with --strategy ray needs --gpus-per-trial, such as 0.25 for four trials on a GPU"
        )
    return "cpu"


def latency_settings(
    configuration: Configuration, boards: tuple[Board, ...] = (), directory: RunDirectory | None = None
) -> LatencySettings:
    """The options of latency measurement; on `boards`, whose measurements are stored in the `directory` of a run."""
    return LatencySettings(
        configuration.latency_batch, configuration.latency_threads, configuration.runtime, configuration.latency,
        _needs(configuration, (ENERGY,)), boards,
        directory.path / _BOARD_MEASUREMENTS if boards and directory is not None else None,
        _latency_may_end_trials(configuration) or configuration.runtime != "onnxruntime" or bool(boards),
    )  # fmt: skip


def _latency_may_end_trials(configuration: Configuration) -> bool:
    """Whether a limit, a scheduler or other recipes of the same architecture may end a trial because of its latency."""
    return (
        configuration.max_latency_ms is not None
        or configuration.scheduler != "none"
        or configuration.co_search is not None
    )


def _own_evaluation(configuration: Configuration, objects: PythonObjects) -> Problem:
    name = configuration.evaluator
    if objects.evaluate is None and name.endswith(".csv"):
        table = TableEvaluator(Path(name).expanduser())
        costs = tuple(table.space.known(next(table.space.grid())))
        return Problem(table.space, lambda directory: table, tuple(table.metrics), costs)
    function = objects.evaluate if objects.evaluate is not None else load_function("evaluator", name)
    if not callable(function):
        raise SlimsearchError(f"--evaluator '{name}' is not a function")
    space: Space
    if isinstance(objects.space, Space):
        space = objects.space
    elif isinstance(objects.space, Mapping):
        space = ChoiceSpace(objects.space)
    else:
        space = networks = _model_space(configuration.space, objects, _dataset(configuration, objects))
        if networks.training:
            space = JointSpace(networks, RecipeSpace({TRAINING: networks.training}, "the training of the space"))
    costs = tuple(space.known(next(space.grid())))
    return Problem(space, lambda directory: FunctionEvaluator(function, space), None, costs)


def with_task(configuration: Configuration, objects: PythonObjects) -> Configuration:
    """The options with the leading metric of the task in place of the accuracy of the default objectives.

    Raises:
        SlimsearchError: there is no such task.
    """
    task = learning_task(configuration, objects)
    metric, direction = task.leading()
    from_python = isinstance(objects.data, Dataset) and configuration.dataset == FROM_PYTHON and objects.task is None
    if from_python and not isinstance(task, OwnScore):
        known = task.name in built_in_names("slimsearch.evaluators.tasks")
        configuration = configuration.replace(task=task.name if known else FROM_PYTHON)
    if configuration.objectives != DEFAULT_OBJECTIVES or metric == "accuracy":
        return configuration
    leading = f"val_{metric}" if f"val_{metric}" in DIRECTIONS else f"val_{metric}:{direction[:3]}"
    return configuration.replace(objectives=DEFAULT_OBJECTIVES.replace("val_accuracy", leading))


def learning_task(configuration: Configuration, objects: PythonObjects) -> LearningTask:
    """What is learned; led by the first objective that is one of its metrics.

    Raises:
        SlimsearchError: there is no such task, or it has not an option that is given.
    """
    given = objects.data.task if isinstance(objects.data, Dataset) else objects.task
    options: dict[str, Any] = {}
    if configuration.class_weights != "none":
        options["class_weights"] = configuration.class_weights
    if configuration.label_smoothing:
        options["label_smoothing"] = configuration.label_smoothing
    if isinstance(objects.data, Dataset) and configuration.task not in ("classification", FROM_PYTHON, given.name):
        raise SlimsearchError(
            f"the data set was read for --task {given.name}: read it with task='{configuration.task}'"
        )
    task = load_task(configuration.task if given is None else given, **options)
    names = [text.strip().partition(":")[0].removeprefix("val_") for text in configuration.objectives.split(",")]
    lead = next((name for name in names if name in task.metrics), task.lead)
    return task if lead in ("", task.leading()[0]) else replace(task, lead=lead)


def _dataset(configuration: Configuration, objects: PythonObjects) -> Dataset:
    task = learning_task(configuration, objects)
    if isinstance(objects.data, Dataset):
        return normalised(replace(objects.data, task=task.fitted(objects.data.train.targets)), configuration)
    if is_unlabelled(objects.data):
        return normalised(unlabelled(objects.data), configuration)
    loaded = load_dataset(
        objects.data if objects.data is not None else configuration.dataset,
        root=configuration.data_root,
        download=configuration.download,
        image_size=configuration.image_size,
        drop_duplicates=configuration.drop_duplicates,
        task=task,
        input_kind=configuration.input_kind,
        target_column=configuration.target_column,
        group_by=configuration.group_by,
    )
    return normalised(loaded, configuration)


def _model_space(name: str, objects: PythonObjects, data: Dataset) -> ModelSpace:
    space = name if objects.space is None else objects.space
    found = ModelSpace.load(space, data.space_shape, len(data.classes), objects.build)
    found.outputs = named(data.task.outputs)
    found.output_shape = data.task.output_shape(len(data.classes), data.input_shape)
    return found


def user_metrics(text: str | None) -> dict[str, UserMetric]:
    """The functions of ``--metrics name=path/to/file.py:function``, by name.

    Raises:
        SlimsearchError: `text` does not have that form or has a name twice, or there is no such function.
    """
    found: dict[str, UserMetric] = {}
    for entry in (text or "").split(","):
        if not entry.strip():
            continue
        name, equals, location = (word.strip() for word in entry.partition("="))
        if not equals or not name:
            raise SlimsearchError(f"--metrics '{entry}' is not of the form name=path/to/file.py:function")
        if name in found:
            raise SlimsearchError(f"--metrics has two functions for {name}")
        function = load_function("metric", location)
        if not callable(function):
            raise SlimsearchError(f"--metrics '{entry}': {location} is not a function")
        found[name] = function
    return found
