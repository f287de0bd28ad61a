"""The search problem: a space and its evaluator (networks on images, a table, or a user's function)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from slimsearch import compression
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import (
    COSTS,
    Board,
    Evaluator,
    FunctionEvaluator,
    Given,
    LatencySettings,
    NetworkEvaluator,
    TableEvaluator,
    runtime_version,
)
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.latency.energy import PackageCounters
from slimsearch.evaluators.tasks import LearningTask
from slimsearch.evaluators.training.augmentation import Augmentation
from slimsearch.loop.evaluation_settings import (
    ENERGY,
    MEMORY,
    latency_settings,
    needs,
    training_settings,
    user_metrics,
)
from slimsearch.loop.given_network import GivenNetwork, prepare_given_network
from slimsearch.loop.learning_data import dataset_of
from slimsearch.loop.python_objects import GivenFromPython, PythonObjects
from slimsearch.names import load_function
from slimsearch.options.configuration import Configuration
from slimsearch.options.initial_weights import initial_weights
from slimsearch.options.recipe_choices import check_choices, recipe_choices
from slimsearch.packed import named
from slimsearch.record.environment import machine
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
)

_COMMON_NETWORKS = "kept"  # folder of a run directory
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
        (*COSTS, *MEMORY) if needs(configuration, MEMORY) else COSTS,
        dataset,
        space if isinstance(space, ModelSpace) else None,
        training.device,
        training.precision,
        latency,
        _hash_of_weights(space, initial),
        None if given is None else configuration,
        () if given is None else given.notes,
    )


def recorded_metrics(configuration: Configuration, task: LearningTask) -> tuple[str, ...]:
    """The metrics of networks, which may be objectives."""
    return (
        *(f"val_{name}" for name in task.metrics), *COSTS, *MEMORY,
        *([ENERGY] if needs(configuration, (ENERGY,)) else []), "training_seconds",
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
    if not needs(configuration, (ENERGY,)):
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
    given = prepare_given_network(configuration, module, lambda options: dataset_of(options, objects), analysis)
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
    dataset = dataset_of(configuration, objects)
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
        memory=needs(configuration, MEMORY),
        given=replace(known, elastic=elastic) if isinstance(space, FixedModel) else None,
        task=data.task,
        fit=fit,
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
        space = networks = _model_space(configuration.space, objects, dataset_of(configuration, objects))
        if networks.training:
            space = JointSpace(networks, RecipeSpace({TRAINING: networks.training}, "the training of the space"))
    costs = tuple(space.known(next(space.grid())))
    return Problem(space, lambda directory: FunctionEvaluator(function, space), None, costs)


def _model_space(name: str, objects: PythonObjects, data: Dataset) -> ModelSpace:
    space = name if objects.space is None else objects.space
    found = ModelSpace.load(space, data.space_shape, len(data.classes), objects.build)
    found.outputs = named(data.task.outputs)
    found.output_shape = data.task.output_shape(len(data.classes), data.input_shape)
    return found
