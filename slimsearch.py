"""Slimsearch from Python: the one import a user needs.

>>> import slimsearch
>>> result = slimsearch.search("lenet", "mnist5k", trials=4, epochs=2)  # doctest: +SKIP
>>> result.top_models(3)  # doctest: +SKIP
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import search_spaces as _search_spaces  # noqa: F401 - lets torchvision, and with it NNI, be imported anywhere
from slimsearch_errors import SlimsearchError

if TYPE_CHECKING:
    from torch import nn

    from evaluators.datasets import Dataset, Split
    from experiments.result import Result

# NNI says so of every class of torch that is newer than itself.
warnings.filterwarnings("ignore", message=r".*is found to be not a nn\.Module", category=RuntimeWarning)

__all__ = ["SlimsearchError", "accuracy", "build", "load_dataset", "load_network", "resume", "search"]


def search(space: Any, dataset: Any = "mnist5k", *, show: bool = True, **options: Any) -> Result:
    """Search `space` on `dataset`, compress the best, and rank the files.

    Args:
        space: an NNI ModelSpace class, or a name as on the command line.
        dataset: a name, the path of an image folder, ``(images, labels)`` (and ``test_images, test_labels``), or a
            PyTorch data set of ``(image, label)`` pairs.
        show: the live display of the command line, or nothing.
        options: the flags of the command line with underscores, e.g. ``trials=10, max_size_kib=100``.

    Returns:
        the result; ``result.top_models(3)`` are dicts with ``architecture``, ``recipe``, ``metrics``, ``artifact``.

    Raises:
        SlimsearchError: something given is wrong, in one line.
    """
    from experiments import job
    from experiments.configuration import Configuration
    from experiments.display import Console

    named_space, named_data = isinstance(space, str), isinstance(dataset, str | Path)
    base = Configuration(space=space if named_space else job.IN_MEMORY)
    configuration = base.replace(**({"dataset": str(dataset)} if named_data else {}), **options)
    return job.start(
        configuration,
        space=None if named_space else space,
        data=None if named_data else dataset,
        display=Console() if show else None,
    )


def resume(run_dir: str | Path, *, space: Any = None, dataset: Any = None, show: bool = True, **options: Any) -> Result:
    """Go on with a run.

    Args:
        run_dir: of the run.
        space, dataset: again, where the run was begun with a class or with arrays.
        show: the live display of the command line, or nothing.
        options: other values of trials, timeout, workers, trial_timeout or retries.

    Raises:
        SlimsearchError: it cannot be resumed, in one line.
    """
    from experiments import job
    from experiments.display import Console

    display = Console() if show else None
    return job.resume(Path(run_dir), options, space=space, data=dataset, display=display)


def build(
    space: Any, architecture: dict[str, Any], *, input_shape: tuple[int, int, int] = (1, 28, 28), num_classes: int = 10
) -> nn.Module:
    """The untrained network that a dict stands for: (N, C, H, W) float32 -> (N, num_classes) logits.

    Raises:
        SlimsearchError: the dict is not in the space.
    """
    from search_spaces import ModelSpace

    made = ModelSpace.load if isinstance(space, str) else ModelSpace
    return made(space, input_shape, num_classes).build(architecture)


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
    import json

    from compression import Network
    from experiments.configuration import Configuration

    folder = Path(run_dir)
    data = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["dataset"]
    fresh = build(
        Configuration.read(folder / "config.yaml").space if space is None else space,
        model["architecture"],
        input_shape=tuple(data["input_shape"]),
        num_classes=len(json.loads(data["classes"])),
    )
    return Network.load(fresh, (folder / model["artifact"]).parent).module


def load_dataset(
    data: Any, *, root: str | Path | None = None, download: bool = False, image_size: int | None = None
) -> Dataset:
    """A data set in its splits, as a run reads it (see `evaluators.datasets.load_dataset`)."""
    from evaluators.datasets import load_dataset as load

    return load(data, root=root, download=download, image_size=image_size)


def accuracy(model: str | Path, dataset: Dataset, split: Split) -> float:
    """Share of `split` that an exported file classifies rightly, in ONNX Runtime."""
    from evaluators import DeployedModel

    predictions = DeployedModel(Path(model)).predict(dataset, split)
    return float((predictions == split.labels).mean())
