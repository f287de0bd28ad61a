"""The public functions: search, resume, train, compress, export, and what reads their results."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from torch import nn

    from slimsearch.compression import Network
    from slimsearch.evaluators import NetworkPipeline
    from slimsearch.evaluators.datasets import Dataset, Split
    from slimsearch.report.report_files import Result


def search(
    space: Any,
    dataset: Any = "mnist5k",
    *,
    evaluate: Callable[..., Mapping[str, float]] | None = None,
    show: bool = True,
    **options: Any,
) -> Result:
    """Search `space` on `dataset`, compress the best, and rank the files; or search with your own evaluation.

    Args:
        space: an NNI ModelSpace class, or a name as on the command line; with `evaluate` also a dict from label to
            values, or a `slimsearch.search_spaces.Space`.
        dataset: a name, the path of an image folder, ``(images, labels)`` (and ``test_images, test_labels``), or a
            PyTorch data set of ``(image, label)`` pairs.
        evaluate: a function from a candidate, as a dict, to named numbers; nothing is trained, exported or compressed
            then, and ``objectives`` names its metrics. See `slimsearch.evaluators.FunctionEvaluator`.
        show: the live display of the command line, or nothing.
        options: the flags of the command line with underscores, e.g. ``trials=10, max_size_kib=100``.

    Returns:
        the result; ``result.top_models(3)`` are dicts with ``architecture``, ``recipe``, ``metrics``, ``artifact``.

    Raises:
        SlimsearchError: something given is wrong, in one line.
    """
    from slimsearch.loop import job
    from slimsearch.options.configuration import FROM_PYTHON, Configuration
    from slimsearch.report.display import Console

    named_space, named_data = isinstance(space, str), isinstance(dataset, str | Path)
    base = Configuration(space=space if named_space else FROM_PYTHON, evaluator=options.pop("evaluator", "network"))
    configuration = base.replace(**({"dataset": str(dataset)} if named_data else {}), **options)
    return job.start(
        configuration,
        space=None if named_space else space,
        data=None if named_data else dataset,
        evaluate=evaluate,
        display=Console() if show else None,
    )


def resume(
    run_dir: str | Path,
    *,
    space: Any = None,
    dataset: Any = None,
    evaluate: Callable[..., Mapping[str, float]] | None = None,
    show: bool = True,
    **options: Any,
) -> Result:
    """Go on with a run.

    Args:
        run_dir: the run directory.
        space, dataset, evaluate: the objects that the run was begun with, if it was begun with any from Python.
        show: the live display of the command line, or nothing.
        options: changed options, of those that ``--help`` marks "also with --resume", such as ``trials=40``.

    Raises:
        SlimsearchError: it cannot be resumed, in one line.
    """
    from slimsearch.loop import job
    from slimsearch.report.display import Console

    display = Console() if show else None
    return job.resume(Path(run_dir), options, space=space, data=dataset, evaluate=evaluate, display=display)


def plot(run_dir: str | Path, kind: str, path: str | Path) -> Path:
    """Draw a plot of a run's report to a PNG, SVG or PDF file, by the suffix of `path`, which comes back.

    Args:
        run_dir: of the run, which is not going on.
        kind: "front", "hypervolume", "importances", "timeline" or "parallel".
        path: of the file.

    Raises:
        SlimsearchError: it is no run or in use, there is no such plot, or it cannot be written so.
    """
    from slimsearch.report.plots import plot as draw

    return draw(run_dir, kind, path)


def build(
    space: Any, architecture: dict[str, Any], *, input_shape: tuple[int, int, int] = (1, 28, 28), num_classes: int = 10
) -> nn.Module:
    """The untrained network that a dict stands for: (N, C, H, W) float32 -> (N, num_classes) logits.

    Raises:
        SlimsearchError: the dict is not in the space.
    """
    from slimsearch.search_spaces import ModelSpace

    make_space = ModelSpace.load if isinstance(space, str) else ModelSpace
    return make_space(space, input_shape, num_classes).build(architecture)


def train(model: nn.Module | Network, dataset: Any, *, epochs: int = 5, seed: int = 0, **settings: Any) -> Network:
    """A trained copy of your own model; arguments as for `compress`.

    Raises:
        SlimsearchError: the loss is not finite.
    """
    return _pipeline(dataset, seed, epochs, **settings).train(_network(model), epochs)


def compress(
    model: nn.Module | Network,
    recipe: str | dict[str, dict[str, Any]],
    dataset: Any,
    *,
    epochs: int = 5,
    seed: int = 0,
    teacher: nn.Module | None = None,
    initial: Callable[[], nn.Module] | None = None,
    **settings: Any,
) -> Network:
    """Your own trained model after a recipe; `model` itself stays as it is.

    Args:
        model: (N, C, H, W) float32, normalised as `dataset` is -> (N, num_classes) logits; or a result of this
            function.
        recipe: as for ``--compress``, or its stages with their options.
        dataset: as for `search`, or a result of `load_dataset`; the test split is not used.
        epochs: of each training, for stages without epochs of their own.
        seed: of everything random.
        teacher: the network that ``teacher=best`` means; ``teacher=parent`` is `model`.
        initial: builds the model with the weights that its training started from, for stages that rewind to them.
        settings: fields of `slimsearch.evaluators.TrainingSettings`, e.g. ``learning_rate=1e-3``.

    Returns:
        the network: ``.module`` in PyTorch; `export` writes its file, ``.save(folder)`` stores it without pickle, and
        ``Network.load(fresh_module, folder)`` reads it again.

    Raises:
        SlimsearchError: something given is wrong or the model cannot be compressed so, in one line.
    """
    from slimsearch.compression import Network, Recipe

    network = model if isinstance(model, Network) else Network(copy.deepcopy(model).eval())
    best = network if teacher is None else Network(copy.deepcopy(teacher).eval())
    pipeline = _pipeline(dataset, seed, epochs, **settings)
    return pipeline.compress(network, Recipe.parse(recipe), teachers={"parent": network, "best": best}, initial=initial)


def export(network: nn.Module | Network, path: str | Path, dataset: Any) -> Path:
    """Write the ONNX file of a network, int8 where its recipe said so, calibrated on training images of `dataset`.

    Raises:
        SlimsearchError: it cannot be expressed in ONNX.
    """
    from slimsearch.evaluators import NetworkPipeline

    return NetworkPipeline(_dataset(dataset)).export(_network(network), Path(path))


def _network(model: nn.Module | Network) -> Network:
    from slimsearch.compression import Network

    return model if isinstance(model, Network) else Network(model)


def _pipeline(dataset: Any, seed: int, epochs: int, **settings: Any) -> NetworkPipeline:
    from slimsearch.evaluators import NetworkPipeline, TrainingSettings, device_for, precision_for

    device = device_for("auto")
    chosen = {"device": device, "precision": precision_for("auto", device), **settings}
    try:
        training = TrainingSettings(**chosen)
    except TypeError as error:
        known = ", ".join(TrainingSettings.__dataclass_fields__)
        raise SlimsearchError(f"{str(error).partition(') ')[2] or error}; settings: {known}") from None
    return NetworkPipeline(_dataset(dataset).without_test(), training, seed, epochs)


def _dataset(dataset: Any) -> Dataset:
    from slimsearch.evaluators.datasets import Dataset

    return dataset if isinstance(dataset, Dataset) else load_dataset(dataset)


def load_network(run_dir: str | Path, model: dict[str, Any], *, space: Any = None) -> nn.Module:
    """The trained network behind a file of a run, as a PyTorch module, pruned where the file is.

    Of an int8 file it is the float32 network that was quantized.

    Args:
        run_dir: of the run.
        model: an entry of ``top_models.json``.
        space: again, where the run was begun with a class.

    Raises:
        SlimsearchError: it cannot be built or loaded.
    """
    from slimsearch.report.exporting import stored_network

    return stored_network(Path(run_dir), model, space=space).module


def load_dataset(
    data: Any, *, root: str | Path | None = None, download: bool = False, image_size: int | None = None
) -> Dataset:
    """A data set in its splits, as a run reads it (see `slimsearch.evaluators.datasets.load_dataset`)."""
    from slimsearch.evaluators.datasets import load_dataset as load

    return load(data, root=root, download=download, image_size=image_size)


def accuracy(model: str | Path, dataset: Dataset, split: Split, *, runtime: str = "onnxruntime") -> float:
    """Share of `split` that an exported file classifies rightly, in ONNX Runtime or OpenVINO."""
    from slimsearch.evaluators import DeployedModel

    predictions = DeployedModel(Path(model), runtime=runtime).predict(dataset, split)
    return float((predictions == split.labels).mean())
