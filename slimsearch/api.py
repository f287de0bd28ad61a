"""The public functions: searches, single steps (train, compress, export), and readers of their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError, describe_error, described

if TYPE_CHECKING:
    from torch import nn

    from slimsearch.compression import Network
    from slimsearch.evaluators import NetworkPipeline
    from slimsearch.evaluators.datasets import Dataset, Split
    from slimsearch.record.trial import Result


def search(
    space: Any,
    dataset: Any = "mnist5k",
    *,
    build: Callable[..., nn.Module] | None = None,
    evaluate: Callable[..., Mapping[str, float]] | None = None,
    show: bool = True,
    **options: Any,
) -> Result:
    """Search `space` on `dataset`, compress the best networks and rank the files; or search with your own evaluation.

    Args:
        space: a function ``define(trial)`` that returns a network, an NNI ModelSpace class, or a name as on the command
            line; with `build` or `evaluate` also a dict from label to values, with `evaluate` also a
            `slimsearch.search_spaces.Space`.
        dataset: a name, the path of an image folder, ``(images, labels)`` (and ``test_images, test_labels``), or a
            PyTorch data set of ``(image, label)`` pairs.
        build: a function that makes the network of one value for each label of `space`, given by name.
        evaluate: a function from a candidate, as a dict, to named numbers. Nothing is trained, exported or compressed
            then; ``objectives`` names its metrics. See `slimsearch.evaluators.FunctionEvaluator`.
        show: show the live display of the command line.
        options: the flags of the command line with underscores, e.g. ``trials=10, max_size_kib=100``.

    Returns:
        the result; ``result.top_models(3)`` are dicts with ``architecture``, ``recipe``, ``metrics``, ``artifact``.

    Raises:
        SlimsearchError: an argument is invalid.
    """
    from slimsearch.loop import job
    from slimsearch.loop.problem import PythonObjects
    from slimsearch.options.configuration import FROM_PYTHON, Configuration
    from slimsearch.report.display import Console

    named_space, named_data = isinstance(space, str), isinstance(dataset, str | Path)
    base = Configuration(space=space if named_space else FROM_PYTHON, evaluator=options.pop("evaluator", "network"))
    configuration = base.replace(**({"dataset": str(dataset)} if named_data else {}), **options)
    objects = PythonObjects(None if named_space else space, None if named_data else dataset, evaluate, build)
    return job.start(configuration, objects, display=Console() if show else None)


def resume(
    run_dir: str | Path,
    *,
    space: Any = None,
    dataset: Any = None,
    build: Callable[..., nn.Module] | None = None,
    evaluate: Callable[..., Mapping[str, float]] | None = None,
    show: bool = True,
    accept_changes: bool = False,
    **options: Any,
) -> Result:
    """Resume a run.

    Args:
        run_dir: the run directory.
        space, dataset, build, evaluate: the Python objects that the run was started with, if any.
        show: show the live display of the command line.
        accept_changes: go on with code that was edited and classes that were renamed since the run was started.
        options: new values of options that ``--help`` marks "also with --resume", such as ``trials=40``.

    Raises:
        SlimsearchError: the run cannot be resumed.
    """
    from slimsearch.loop import job
    from slimsearch.loop.problem import PythonObjects
    from slimsearch.report.display import Console

    objects = PythonObjects(space, dataset, evaluate, build)
    display = Console() if show else None
    return job.resume(Path(run_dir), options, objects, display=display, accept_changes=accept_changes)


def plot(run_dir: str | Path, kind: str, path: str | Path) -> Path:
    """Draw a plot of a run's report to a file. Returns `path`.

    Args:
        run_dir: the run directory; no process may be using it.
        kind: "front", "hypervolume", "importances", "timeline" or "parallel".
        path: of the file; its suffix selects PNG, SVG or PDF.

    Raises:
        SlimsearchError: `run_dir` is not a run or is in use, `kind` is unknown, or the file cannot be written.
    """
    from slimsearch.report.plots import plot as draw

    return draw(run_dir, kind, path)


def build(
    space: Any, architecture: dict[str, Any], *, input_shape: tuple[int, int, int] = (1, 28, 28), num_classes: int = 10
) -> nn.Module:
    """The untrained network of an architecture: (N, C, H, W) float32 -> (N, num_classes) logits.

    Args:
        space: as for `search`: a function ``define(trial)``, an NNI ModelSpace class, or a name.
        architecture: a dict from label to value, such as ``model["architecture"]`` of an entry of ``top_models.json``.
        input_shape: (C, H, W) of one image.
        num_classes: number of logits.

    Raises:
        SlimsearchError: the architecture is not in the space.
    """
    from slimsearch.search_spaces import ModelSpace

    with described("the network cannot be built"):
        return ModelSpace.load(space, input_shape, num_classes).build(architecture)


def train(model: nn.Module | Network, dataset: Any, *, epochs: int = 5, seed: int = 0, **settings: Any) -> Network:
    """A trained copy of your own model; arguments as for `compress`.

    Of a model that gives more than logits in training mode, such as those of auxiliary heads, the first output is
    trained.

    Raises:
        SlimsearchError: an argument is invalid, the model cannot be trained, or the loss is not finite.
    """
    return _pipeline(dataset, seed, epochs, **settings).train(_network(model), epochs)


def compress(
    model: nn.Module | Network,
    recipe: str | dict[str, dict[str, Any]],
    dataset: Any,
    *,
    epochs: int = 5,
    seed: int = 0,
    teacher: nn.Module | Network | None = None,
    initial: Callable[[], nn.Module] | None = None,
    **settings: Any,
) -> Network:
    """Compress your own trained model; `model` is not changed.

    Args:
        model: (N, C, H, W) float32, normalized like `dataset` -> (N, num_classes) logits, copied and converted to
            float32; or a result of this function.
        recipe: as for ``--compress``, or a dict from stages to their options.
        dataset: as for `search`, or a result of `load_dataset`; the test split is not used.
        epochs: of the training of each stage that does not set its own.
        seed: of all random numbers.
        teacher: the network for ``teacher=best``; ``teacher=parent`` is `model`.
        initial: builds the model with its initial weights, for stages that rewind to them.
        settings: fields of `slimsearch.evaluators.TrainingSettings`, e.g. ``learning_rate=1e-3``.

    Returns:
        the network: ``.module`` in PyTorch; `export` writes its file, ``.save(folder)`` stores it without pickle, and
        ``Network.load(fresh_module, folder)`` loads it.

    Raises:
        SlimsearchError: an argument is invalid, or the model does not support a stage.
    """
    from slimsearch.compression import Recipe

    stages = Recipe.parse(recipe)
    stages.check()
    network = _network(model)
    best = network if teacher is None else _network(teacher)
    first = None if initial is None else lambda: _initial(initial)
    pipeline = _pipeline(dataset, seed, epochs, **settings)
    pipeline.check_outputs(network)
    return pipeline.compress(network, stages, teachers={"parent": network, "best": best}, initial=first)


def export(network: nn.Module | Network, path: str | Path, dataset: Any) -> Path:
    """Write the ONNX file of a network, int8 where its recipe said so, calibrated on training images of `dataset`.

    Raises:
        SlimsearchError: an argument is invalid, ONNX cannot express the network for every batch size, or the file
            cannot be written.
    """
    from slimsearch.evaluators import NetworkPipeline

    pipeline, converted = NetworkPipeline(_dataset(dataset)), _network(network)
    pipeline.check_outputs(converted)
    try:
        return pipeline.export(converted, Path(path))
    except (OSError, TypeError, ValueError) as error:
        raise SlimsearchError(f"cannot write '{path}': {describe_error(error)}") from error


def _network(model: nn.Module | Network) -> Network:
    from slimsearch.compression import Network

    with described("the model cannot be copied"):
        return model if isinstance(model, Network) else Network.of(model)


def _initial(build: Callable[[], nn.Module]) -> nn.Module:
    with described("initial() failed"):
        module = build()
    return _network(module).module


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
    from slimsearch.evaluators.datasets import Dataset

    return dataset if isinstance(dataset, Dataset) else load_dataset(dataset)


def load_network(
    run_dir: str | Path, model: dict[str, Any], *, space: Any = None, build: Callable[..., nn.Module] | None = None
) -> nn.Module:
    """The trained (and pruned) network of an exported file, as a PyTorch module.

    For an int8 file, this is the float32 network that was quantized.

    Args:
        run_dir: the run directory.
        model: an entry of ``top_models.json``.
        space, build: those that the run was started with, if from Python.

    Raises:
        SlimsearchError: the network cannot be built or loaded.
    """
    from slimsearch.report.exporting import stored_network

    return stored_network(Path(run_dir), model, space=space, build=build).module


def load_dataset(
    data: Any, *, root: str | Path | None = None, download: bool = False, image_size: int | None = None,
    drop_duplicates: bool = False,
) -> Dataset:  # fmt: skip
    """A data set with its splits, as a run reads it (see `slimsearch.evaluators.datasets.load_dataset`)."""
    from slimsearch.evaluators.datasets import load_dataset as load

    return load(data, root=root, download=download, image_size=image_size, drop_duplicates=drop_duplicates)


def accuracy(model: str | Path, dataset: Dataset, split: Split, *, runtime: str = "onnxruntime") -> float:
    """Accuracy of an exported file on `split`, in ONNX Runtime or OpenVINO."""
    from slimsearch.evaluators import DeployedModel

    predictions = DeployedModel(Path(model), runtime=runtime).predict(dataset, split)
    return float((predictions == split.labels).mean())
