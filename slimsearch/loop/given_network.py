"""The network that a run is given to compress, and the data set as that network was trained on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slimsearch.compression import ElasticNetwork, Network, analysis_file
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import NetworkPipeline
from slimsearch.evaluators.datasets import Dataset
from slimsearch.options.configuration import OF_DATASET, Configuration, ModelKind, channels
from slimsearch.options.existing_networks import InputsInTraining, fixed_model, inputs_in_training
from slimsearch.packed import named
from slimsearch.search_spaces import ElasticSpace, FixedModel

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class GivenNetwork:
    """A network to compress.

    Attributes:
        space: has the network as its only point, or those that it becomes without some channels and blocks.
        data: normalized as the network was trained, with as many channels as it takes.
        configuration: with the normalization and the size of images that were found.
        notes: what was assumed, in one line each.
        elastic: what can be left out of the network, with ``--elastic``.
    """

    space: FixedModel
    data: Dataset
    configuration: Configuration
    notes: tuple[str, ...]
    elastic: ElasticNetwork | None = None


def prepare_given_network(
    configuration: Configuration, module: nn.Module | None, load: Callable[[Configuration], Dataset],
    analysis: Path | None,
) -> GivenNetwork:  # fmt: skip
    """The network of ``configuration.model``, with its data set.

    Args:
        configuration: the options.
        module: passed from Python.
        load: reads the data set.
        analysis: file of an earlier analysis of the network, which may be missing.

    Raises:
        SlimsearchError: the network, its weights or its normalization are unknown, or it does not fit the data set.
    """
    declared = inputs_in_training(configuration)
    notes: list[str] = []
    if configuration.image_size is None and declared is not None and declared.size is not None:
        configuration = configuration.replace(image_size=declared.size)
        notes.append(f"images are resized to {declared.size} pixels, by {declared.source}; --image-size changes it")
    from_python = ModelKind.of(configuration.model or "") is ModelKind.PYTHON
    of_dataset = configuration.mean == OF_DATASET or (configuration.mean is None and from_python)
    if of_dataset:
        configuration = configuration.replace(mean=None, std=None)
    elif configuration.mean is None:
        if declared is None:
            raise SlimsearchError(
                "--mean and --std are missing, with which the network was trained: numbers, such as ImageNet's --mean "
                "0.485,0.456,0.406 --std 0.229,0.224,0.225, or --mean dataset --std dataset for those of the data set"
            )
        configuration = configuration.replace(mean=_text(declared.mean), std=_text(declared.std))
        if declared.size is None:
            notes.append(f"inputs are normalized as in {declared.source}")
        else:
            mean, std = (",".join(f"{value:g}" for value in values) for values in (declared.mean, declared.std))
            notes.append(f"images are normalized by mean {mean} and deviation {std}, by {declared.source}")
    data = load(configuration.replace(mean=None, std=None))
    classes = len(data.classes)
    _check_classes(declared, data)
    space = fixed_model(configuration, data.space_shape, classes, module=module)
    space.outputs = named(data.task.outputs)
    space.output_shape = data.task.output_shape(classes, data.input_shape)
    if configuration.elastic and (data.fields or space.outputs):
        raise SlimsearchError("--elastic is for networks with one input and one output")
    wanted = None if data.fields else _channels(space)
    if wanted == 3 and data.input_shape[0] == 1:
        data = data.in_color()
        notes.append("the images are grey and the network takes colors: each image becomes three equal channels")
        space = fixed_model(configuration, data.input_shape, classes, module=module)
        space.outputs = named(data.task.outputs)
        space.output_shape = data.task.output_shape(classes, data.input_shape)
    try:
        space.build({})
    except SlimsearchError as error:
        if wanted in (None, data.input_shape[0]):
            raise
        raise SlimsearchError(
            f"the network takes images of {wanted} channels, the data set has {data.input_shape[0]}"
        ) from error
    data = normalised(data, configuration)
    if not from_python and (declared is None or declared.classes is None):
        some = ", ".join(data.classes[:3]) + (", ..." if classes > 3 else "")
        notes.append(f"the logits are taken to be in the order of the data set's classes: {some}")
    if of_dataset:
        configuration = configuration.replace(mean=_text(data.mean), std=_text(data.std))
    if not configuration.elastic:
        return GivenNetwork(space, data, configuration, tuple(notes))
    images = NetworkPipeline(data).network_training().calibration
    elastic = analysis_file.read_or_analyze(analysis, Network(space.build({})), images)
    return GivenNetwork(ElasticSpace(space, elastic.depths, elastic.widths), data, configuration, tuple(notes), elastic)


def normalised(data: Dataset, configuration: Configuration) -> Dataset:
    """The data set with the normalization of ``--mean`` and ``--std``, if they are numbers.

    Raises:
        SlimsearchError: they are no numbers, or do not fit the channels.
    """
    if configuration.mean is None or configuration.std is None or configuration.mean == OF_DATASET:
        return data
    return data.normalised_by(channels("mean", configuration.mean), channels("std", configuration.std))


def _text(values: tuple[float, ...]) -> str:
    return ",".join(map(repr, values))


def _channels(space: FixedModel) -> int | None:
    """Number of input channels of the first convolution."""
    from torch import nn

    first = next((layer for layer in space.construct().modules() if isinstance(layer, nn.Conv2d)), None)
    return None if first is None else first.in_channels


def _check_classes(declared: InputsInTraining | None, data: Dataset) -> None:
    if declared is None or declared.classes is None or declared.classes == data.classes:
        return
    if sorted(declared.classes) == sorted(data.classes):
        raise SlimsearchError(f"the classes of the data set have another order than those of {declared.source}")
    if len(declared.classes) != len(data.classes):
        raise SlimsearchError(
            f"the network was trained for {len(declared.classes)} classes, the data set has {len(data.classes)}: train "
            "it on this data set before it is compressed"
        )
