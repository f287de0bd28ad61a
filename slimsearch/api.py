"""The public functions: searches, single steps (train, compress, export), and readers of their results."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from slimsearch.errors import SlimsearchError, describe_error, described

if TYPE_CHECKING:
    from torch import nn

    from slimsearch.compression import Network
    from slimsearch.evaluators import NetworkPipeline
    from slimsearch.evaluators.datasets import Dataset, Split
    from slimsearch.loop.python_objects import GivenFromPython
    from slimsearch.report.compressed import Compressed
    from slimsearch.report.result import Result

ParametersT = ParamSpec("ParametersT")
ReturnT = TypeVar("ReturnT")


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike)


def _is_file(value: object) -> bool:
    from slimsearch.report.compressed import Compressed

    return isinstance(value, Compressed) or _is_path(value)


def _is_dataset(value: object) -> bool:
    from slimsearch.evaluators.datasets import Dataset

    return isinstance(value, Dataset)


def _is_split(value: object) -> bool:
    from slimsearch.evaluators.datasets import Split

    return isinstance(value, Split)


_KINDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "str": (lambda value: isinstance(value, str), "a text"),
    "str | Path": (_is_path, "a path"),
    "str | Path | Compressed": (
        _is_file, "the path of a file that slimsearch.export wrote, or a result of slimsearch.compress"
    ),
    "Dataset": (_is_dataset, "a data set of slimsearch.load_dataset"),
    "Split": (_is_split, "a split of the data set, such as data.validation"),
}  # fmt: skip
"""For annotations of arguments: whether a value is of that kind, and what the kind is."""


def _checked(function: Callable[ParametersT, ReturnT]) -> Callable[ParametersT, ReturnT]:
    """`function`, which raises a `SlimsearchError` where an argument is not of a kind of `_KINDS` that it should be."""
    signature = inspect.signature(function)
    kinds = {
        name: (_KINDS[text.removesuffix(" | None")], text.endswith(" | None"))
        for name, parameter in signature.parameters.items()
        if (text := str(parameter.annotation)).removesuffix(" | None") in _KINDS
    }

    @functools.wraps(function)
    def checked(*arguments: ParametersT.args, **named: ParametersT.kwargs) -> ReturnT:
        given = signature.bind(*arguments, **named).arguments
        for name, ((fits, what), may_be_none) in kinds.items():
            if name not in given or fits(given[name]) or (given[name] is None and may_be_none):
                continue
            found = "None" if given[name] is None else f"of type {type(given[name]).__name__}"
            raise SlimsearchError(f"{name} is {found}; needed: {what}")
        return function(*arguments, **named)

    return checked


@_checked
def search(
    space: Any,
    dataset: Any = "mnist5k",
    *,
    build: Callable[..., nn.Module] | None = None,
    evaluate: Callable[..., Mapping[str, float]] | None = None,
    task: Any = "classification",
    fit: Callable[..., Any] | None = None,
    score: Callable[..., Any] | None = None,
    lightning: Callable[..., Any] | None = None,
    show: bool = True,
    **options: Any,
) -> Result:
    """Search `space` on `dataset`, compress the best networks and rank the exported files.

    Args:
        space: a function ``define(trial)`` that returns a network, an NNI ModelSpace class, or a name as on the command
            line; or a trained network, as for `compress`, whose channels, blocks and recipe are searched. With `build`
            or `evaluate`, also a dict from label to values; with `evaluate`, also a `slimsearch.search_spaces.Space`.
        dataset: a name, the path of an image folder, ``(inputs, targets)`` (and ``test_inputs, test_targets``), or a
            PyTorch data set of ``(input, target)`` pairs; see `load_dataset`. With `fit` and `score`, or `lightning`,
            also one array of network inputs (N, ...) without targets.
        build: a function that returns a network; its arguments are the labels of `space`, each with one value.
        evaluate: a function that returns the metrics of a candidate, both as dicts. Nothing is trained, exported or
            compressed then; ``objectives`` names the metrics. See `slimsearch.evaluators.FunctionEvaluator`.
        task: the learning task: "classification", "multilabel", "regression", "segmentation",
            ``path/to/file.py:Class``, or a `LearningTask`.
        fit: a function ``fit(model, epochs, report)`` that trains networks in place of Slimsearch; see
            `slimsearch.evaluators.training.function_training.Fit`.
        score: with `fit`: a function ``score(predict)`` that returns the metrics of a network and of its file, in place
            of those of the task; see `slimsearch.evaluators.tasks.OwnScore`.
        lightning: in place of `fit` and `score`: a function that returns ``(LightningModule, data)`` for a network.
        show: show the live display of the command line.
        options: command-line options with underscores, e.g. ``trials=10, max_size_kib=100``.

    Returns:
        the result: ``result.best`` is the recommended model, ``result.top_models(3)`` are the first three, as dicts.

    Raises:
        SlimsearchError: an argument is invalid.
    """
    from slimsearch.loop import job
    from slimsearch.loop.python_objects import PythonObjects
    from slimsearch.options.configuration import FINE_TUNING, FROM_PYTHON, Configuration
    from slimsearch.report.display import Console

    named_space, named_data = isinstance(space, str), isinstance(dataset, str | Path)
    network = _given(space)
    if network is not None:
        base = Configuration(model=FROM_PYTHON, elastic=True, co_search="elastic", **FINE_TUNING)
    else:
        base = Configuration(space=space if named_space else FROM_PYTHON, evaluator=options.pop("evaluator", "network"))
    if isinstance(task, str):
        options["task"], task = task, None
    configuration = base.replace(**({"dataset": str(dataset)} if named_data else {}), **options)
    space = None if named_space or network is not None else space
    objects = PythonObjects(
        space, None if named_data else dataset, evaluate, build, network, task, fit, score, lightning
    )
    return job.start(configuration, objects, display=Console() if show else None)


@_checked
def resume(
    run_dir: str | Path,
    *,
    space: Any = None,
    dataset: Any = None,
    build: Callable[..., nn.Module] | None = None,
    evaluate: Callable[..., Mapping[str, float]] | None = None,
    task: Any = None,
    fit: Callable[..., Any] | None = None,
    score: Callable[..., Any] | None = None,
    lightning: Callable[..., Any] | None = None,
    show: bool = True,
    accept_changes: bool = False,
    **options: Any,
) -> Result:
    """Continue a run that was stopped or killed.

    Args:
        run_dir: the run directory.
        space, dataset, build, evaluate, task, fit, score, lightning: the Python objects that the run was started with,
            if any; `space` may be a trained network.
        show: show the live display of the command line.
        accept_changes: continue although code was edited or classes were renamed since the run was started.
        options: new values of options that ``--help`` marks "also with --resume", such as ``trials=40``.

    Raises:
        SlimsearchError: the run cannot be resumed.
    """
    from slimsearch.loop import job
    from slimsearch.loop.python_objects import PythonObjects
    from slimsearch.report.display import Console

    network = _given(space)
    space = space if network is None else None
    objects = PythonObjects(space, dataset, evaluate, build, network, task, fit, score, lightning)
    display = Console() if show else None
    return job.resume(Path(run_dir), options, objects, display=display, accept_changes=accept_changes)


@_checked
def plot(run_dir: str | Path, kind: str, path: str | Path, *, storage: str | None = None) -> Path:
    """Draw a plot of a run's report to a file. Returns `path`.

    Args:
        run_dir: the run directory; no process may be using it.
        kind: "front", "hypervolume", "importances", "timeline" or "parallel".
        path: path of the file; its suffix selects PNG, SVG or PDF.
        storage: URL of the study, if it is in a database on another machine.

    Raises:
        SlimsearchError: `run_dir` is not a run or is in use, `kind` is unknown, or the file cannot be written.
    """
    from slimsearch.report.plots import plot as draw

    return draw(run_dir, kind, path, storage=storage)


def build(
    space: Any, architecture: dict[str, Any], *, input_shape: tuple[int, ...] = (1, 28, 28), num_classes: int = 10
) -> nn.Module:
    """Build the untrained network of an architecture: (N, C, H, W) float32 -> (N, num_classes) logits.

    Args:
        space: as for `search`: a function ``define(trial)``, an NNI ModelSpace class, or a name.
        architecture: a dict from label to value, such as "architecture" in an entry of ``top_models.json``.
        input_shape: (C, H, W) of one image.
        num_classes: number of logits.

    Raises:
        SlimsearchError: the architecture is not in the space.
    """
    from slimsearch.search_spaces import ModelSpace

    with described("the network cannot be built"):
        return ModelSpace.load(space, input_shape, num_classes).build(architecture)


def train(
    model: nn.Module | Network | Compressed, dataset: Any, *, epochs: int = 5, seed: int = 0, **settings: Any
) -> Network:
    """Train a copy of your own model and return it; arguments as for `compress`.

    If the model has further outputs in training mode, such as those of auxiliary heads, only the first is trained.

    Raises:
        SlimsearchError: an argument is invalid, the model cannot be trained, or the loss is not finite.
    """
    from slimsearch.progress import progress

    data = _dataset(dataset)
    pipeline = _pipeline(data, seed, epochs, **settings)
    with progress("training, epoch", epochs) as advance:

        def on_epoch(epoch: int, metrics: Mapping[str, float]) -> bool:
            advance()
            return True

        pipeline.on_epoch = on_epoch
        return pipeline.train(_network(model, data), epochs)


@_checked
def compress(
    model: nn.Module | Network | Compressed,
    recipe: str | dict[str, dict[str, Any]],
    dataset: Any,
    *,
    epochs: int = 5,
    seed: int = 0,
    teacher: nn.Module | Network | Compressed | None = None,
    initial: Callable[[], nn.Module] | None = None,
    max_drop: float | None = None,
    run_dir: str | Path | None = None,
    fit: Callable[..., Any] | None = None,
    score: Callable[..., Any] | None = None,
    lightning: Callable[..., Any] | None = None,
    show: bool = True,
    **settings: Any,
) -> Compressed:
    """Compress your own trained model; `model` is not changed.

    As ``slimsearch compress``, this is a run: after each group of stages, the file is compared with the previous one.

    Args:
        model: (N, C, H, W) float32, normalized like `dataset` -> (N, num_classes) logits, copied and converted to
            float32; or a result of `train` or of this function that is not quantized.
        recipe: as for ``--recipe``, or a dict from stages to their options.
        dataset: as for `search`, or a result of `load_dataset`.
        fit, score, lightning: as for `search`.
        epochs: epochs of training in each stage that does not set its own.
        seed: seed of all random numbers.
        teacher: the network for ``teacher=best``; ``teacher=parent`` is `model`.
        initial: a function that builds the model with its initial weights, for stages that rewind to them.
        max_drop: percentage points of validation accuracy that a stage may lose. A stage that loses more, or makes the
            file neither smaller nor faster, is rejected. None: all stages are kept, each with its verdict.
        run_dir: the run directory; by default ``runs/<class of the model>-<date>-<time>``.
        show: show the live display of the command line.
        settings: fields of `slimsearch.evaluators.TrainingSettings`; the default of ``learning_rate`` is 0.001, as on
            the command line.

    Returns:
        the network and its file, the metrics before and after, and the verdict on each stage; ``print`` shows a table.
        ``.module`` is the network in PyTorch, ``.save(folder)`` stores it without pickle.

    Raises:
        SlimsearchError: an argument is invalid, or the model does not support a stage.
    """
    from slimsearch.compression import Recipe
    from slimsearch.evaluators import Given
    from slimsearch.evaluators.datasets import is_unlabelled
    from slimsearch.loop import job
    from slimsearch.loop.python_objects import GivenFromPython, PythonObjects
    from slimsearch.options.configuration import FINE_TUNING, FROM_PYTHON, Configuration
    from slimsearch.report.compressed import Compressed
    from slimsearch.report.display import Console

    stages = Recipe.parse(recipe)
    stages.check()
    data = _dataset(dataset)
    network = _network(model, data)
    if network.quantization is not None:
        raise SlimsearchError("the model is quantized already: compress the one that it was made from")
    first = None if initial is None else lambda: _initial(initial, data)
    pipeline = _pipeline(data, seed, epochs, **{"learning_rate": FINE_TUNING["learning_rate"], **settings})
    pipeline.check_outputs(network)
    best = None if teacher is None else _network(teacher, data)
    if best is not None:
        pipeline.check_outputs(best)
    training = pipeline.training
    configuration = Configuration(
        compress=stages.text(), max_drop=max_drop, trials=1, top_k=1, epochs=epochs, seed=seed, workers=1,
        sampler="random", model=FROM_PYTHON, run_dir=None if run_dir is None else str(run_dir),
        batch_size=training.batch_size, learning_rate=training.learning_rate, weight_decay=training.weight_decay,
        warm_up=training.warm_up, augment=training.augmentation, device=training.device, precision=training.precision,
        training_threads=training.threads, epoch_images=training.epoch_images,
        normalise="folded" if training.normalise else "none",
    )  # fmt: skip
    objects = PythonObjects(
        data=dataset if is_unlabelled(dataset) else data,
        network=GivenFromPython(network.module, Given(first, best)), fit=fit, score=score,
        lightning=lightning,
    )  # fmt: skip
    result = job.start(configuration, objects, display=Console() if show else None)
    return Compressed.of(result, network.module)


@_checked
def export(network: nn.Module | Network | Compressed, path: str | Path, dataset: Any) -> Path:
    """Write the ONNX file of a network; int8 layers of its recipe are calibrated on training images of `dataset`.

    Raises:
        SlimsearchError: an argument is invalid, ONNX cannot express the network for every batch size, or the file
            cannot be written.
    """
    from slimsearch.evaluators import NetworkPipeline
    from slimsearch.progress import progress

    data = _dataset(dataset)
    pipeline, converted = NetworkPipeline(data), _network(network, data)
    pipeline.check_outputs(converted)
    try:
        with progress("exporting the network"):
            return pipeline.export(converted, Path(path))
    except (OSError, ValueError) as error:
        raise SlimsearchError(f"cannot write '{path}': {describe_error(error)}") from error


def _given(space: Any) -> GivenFromPython | None:
    """The trained network to search around, if `space` is one."""
    if space is None or isinstance(space, str | Mapping):
        return None
    from torch import nn

    from slimsearch.compression import Network
    from slimsearch.loop.python_objects import GivenFromPython
    from slimsearch.report.compressed import Compressed

    if not isinstance(space, nn.Module | Network | Compressed):
        return None
    network = _network(space)
    if network.quantization is not None:
        raise SlimsearchError("the model is quantized already: search around the one that it was made from")
    return GivenFromPython(network.module)


def _network(model: nn.Module | Network | Compressed, data: Dataset | None = None) -> Network:
    """A network of the user's, with one input and one output for the examples of `data`."""
    from slimsearch.compression import Network
    from slimsearch.packed import named
    from slimsearch.packed_module import packed
    from slimsearch.report.compressed import Compressed

    model = model.network if isinstance(model, Compressed) else model
    with described("the model cannot be copied"):
        network = model if isinstance(model, Network) else Network.of(model)
    if data is None:
        return network
    module = packed(network.module, named(data.space_shape), named(data.task.outputs))
    return network if module is network.module else Network(module, network.structure, network.quantization)


def _initial(build: Callable[[], nn.Module], data: Dataset) -> nn.Module:
    with described("initial() failed"):
        module = build()
    return _network(module, data).module


def _pipeline(dataset: Any, seed: int, epochs: int, **settings: Any) -> NetworkPipeline:
    from slimsearch.evaluators import NetworkPipeline, TrainingSettings, device_for, precision_for

    for name, value in {"epochs": epochs, "seed": seed}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise SlimsearchError(f"{name} {value!r} is not a whole number from 0 on")
    device = device_for(settings.pop("device", "auto"))
    chosen = {"device": device, **settings, "precision": precision_for(settings.get("precision", "auto"), device)}
    try:
        training = TrainingSettings(**chosen)
    except TypeError as error:
        known = ", ".join(TrainingSettings.__dataclass_fields__)
        raise SlimsearchError(f"{str(error).partition(') ')[2] or error}; settings: {known}") from None
    training.check()
    return NetworkPipeline(_dataset(dataset).without_test(), training, seed, epochs)


def _dataset(dataset: Any) -> Dataset:
    from slimsearch.evaluators.datasets import Dataset, is_unlabelled, unlabelled

    if is_unlabelled(dataset):
        return unlabelled(dataset)
    return dataset if isinstance(dataset, Dataset) else load_dataset(dataset)


@_checked
def load_network(
    run_dir: str | Path, model: dict[str, Any], *, space: Any = None, build: Callable[..., nn.Module] | None = None
) -> nn.Module:
    """Load the trained (and pruned) network of an exported file, as a PyTorch module.

    For an int8 file, this is the float32 network before quantization.

    Args:
        run_dir: the run directory.
        model: an entry of ``top_models.json``.
        space, build: the Python objects that the run was started with, if any; `space` may be the network that was
            compressed.

    Raises:
        SlimsearchError: the network cannot be built or loaded.
    """
    from slimsearch.options.existing_networks import stored_network

    return stored_network(Path(run_dir), model, space=space, build=build).module


@_checked
def load_dataset(
    data: Any, *, root: str | Path | None = None, download: bool = False, image_size: int | str | None = None,
    drop_duplicates: bool = False, task: Any = "classification", input_kind: str = "auto", groups: Any = None,
    target_column: str | None = None, group_by: str | None = None,
) -> Dataset:  # fmt: skip
    """Load a data set with its splits, as a run reads it (see `slimsearch.evaluators.datasets.load_dataset`)."""
    from slimsearch.evaluators.datasets import load_dataset as load

    return load(
        data, root=root, download=download, image_size=image_size, drop_duplicates=drop_duplicates, task=task,
        input_kind=input_kind, groups=groups, target_column=target_column, group_by=group_by,
    )  # fmt: skip


@_checked
def score(
    model: str | Path | Compressed, dataset: Dataset, split: Split, *, runtime: str = "onnxruntime"
) -> dict[str, float]:
    """Measure an exported file on `split`, in `runtime` (see ``--runtime``): all metrics of the data set's task.

    If the leading metric is not a proportion, its 95% interval is among the metrics.

    Args:
        model: the path of a file, or a result of `compress`, whose file is measured.
        dataset: a result of `load_dataset`.
        split: of the data set.
        runtime: that runs the file.

    Raises:
        SlimsearchError: the file cannot be read, or does not take examples of the data set.
    """
    from slimsearch.evaluators import DeployedModel, scores
    from slimsearch.report.compressed import Compressed

    path = model.path if isinstance(model, Compressed) else Path(model)
    examples = DeployedModel(path, runtime=runtime).examples(dataset, split)
    return {name.removeprefix("val_"): value for name, value in scores(dataset.task, examples, "val").items()}


@_checked
def accuracy(model: str | Path | Compressed, dataset: Dataset, split: Split, *, runtime: str = "onnxruntime") -> float:
    """Measure the accuracy of an exported file on `split`, see `score`.

    Raises:
        SlimsearchError: the data set's task has no accuracy; `score` gives the metrics that it has.
    """
    found = score(model, dataset, split, runtime=runtime)
    if "accuracy" not in found:
        raise SlimsearchError(f"the data set has no accuracy; slimsearch.score gives its {', '.join(found)}")
    return found["accuracy"]
