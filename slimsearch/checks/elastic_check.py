"""Check of the space around a network: what can be left out of it, and what the networks without that cost."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch.checks.space_check import (
    CheckedChoice,
    SpaceCheck,
    add_file_costs,
    grouped,
    limited_file_costs,
    within,
)
from slimsearch.compression import ElasticNetwork, Network
from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.evaluators.datasets import sides
from slimsearch.evaluators.network_pipeline import write_file
from slimsearch.loop.evaluation_settings import latency_settings
from slimsearch.loop.problem import given_network
from slimsearch.loop.python_objects import PythonObjects
from slimsearch.options.check_names import check_names
from slimsearch.options.configuration import Configuration
from slimsearch.options.existing_networks import fixed_model, inputs_in_training, usual_image_size
from slimsearch.record.ranking import Ranking
from slimsearch.search_spaces import ElasticSpace
from slimsearch.temporary import process_folder

_SECONDS = 30.0  # for sampled networks
_CLASSES = 1000  # without a data set


def checked_network(configuration: Configuration, samples: int, *, with_data: bool) -> SpaceCheck:
    """Check the space around the network of ``configuration.model``, for up to 30 seconds after its analysis.

    Args:
        configuration: the options; without weights, the network has random ones.
        samples: maximum number of random networks.
        with_data: whether images are those of the data set; or noise of the size that the network was made for.

    Raises:
        SlimsearchError: an option is invalid, or nothing can be left out of the network.
    """
    limits = Ranking.of(configuration).limits
    check_names(configuration, trained=False)
    space, elastic = (_with_data if with_data else _without_data)(configuration)
    whole = Network(space.construct())
    example = elastic.images[:1]
    rng = np.random.default_rng(configuration.seed)
    until = time.monotonic() + _SECONDS
    active: Counter[str] = Counter()
    runs: list[dict[str, Any]] = []
    fails: list[tuple[dict[str, Any], str]] = []
    costs: dict[str, list[float]] = {"params": [], "macs": []}
    metrics = limited_file_costs(limits)
    while len(runs) + len(fails) < samples and (time.monotonic() < until or not runs):
        point = space.sample(rng)
        active.update(point.keys())
        try:
            network = elastic.apply(whole, space.candidate(point).architecture)
            if metrics:
                with tempfile.TemporaryDirectory(prefix="slimsearch-", dir=process_folder()) as folder:
                    path = Path(folder) / f"model{latency_settings(configuration).suffix}"
                    write_file(network, path, elastic.images[:2])
                    add_file_costs(costs, path, metrics)
        except SlimsearchError as error:
            fails.append((point, str(error)))
            if time.monotonic() >= until:
                break
            continue
        runs.append(point)
        costs["params"].append(network.params)
        costs["macs"].append(network.macs(example))
    parts = {one.label: len(one.layers) for one in elastic.widths} | {d.label: len(d.blocks) for d in elastic.depths}
    sampled = len(runs) + len(fails)
    groups, blocks = sum(len(one.layers) for one in elastic.widths), sum(len(one.blocks) for one in elastic.depths)
    return SpaceCheck(
        space.size,
        None,
        tuple(
            CheckedChoice(choice.label, choice.values, parts[choice.label], active[choice.label] / sampled, None)
            for choice in space.choices
        ),
        sampled,
        len(runs),
        grouped(fails, runs),
        costs,
        within(limits, costs),
        (
            f"{whole.params:,} parameters, groups of coupled channels: {groups}, blocks that can be skipped: {blocks}",
            *(f"layers that keep all channels: {one}" if elastic.widths else one for one in elastic.whole),
        ),
    )


def _with_data(configuration: Configuration) -> tuple[ElasticSpace, ElasticNetwork]:
    configuration = configuration.replace(elastic=True)
    if configuration.mean is None and inputs_in_training(configuration) is None:
        configuration = configuration.replace(mean="dataset", std="dataset")
    given = given_network(configuration, PythonObjects())
    assert isinstance(given.space, ElasticSpace)
    assert given.elastic is not None
    return given.space, given.elastic


def _without_data(configuration: Configuration) -> tuple[ElasticSpace, ElasticNetwork]:
    import torch

    size = sides(configuration.image_size or usual_image_size(configuration.model or ""))
    if size is None:
        raise SlimsearchError(f"which images does '{configuration.model}' take? Give --dataset, or --image-size")
    model = fixed_model(configuration, (3, *size), _CLASSES)
    module = model.construct()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            for batch in (images, images[:1]):  # channels are compared on several images, costs are those of one
                module(batch)
    except Exception as error:  # a user's model may raise anything
        shape = "x".join(map(str, images.shape[1:]))
        raise SlimsearchError(
            f"the model fails on images of {shape}: {describe_error(error)}; give --dataset"
        ) from error
    elastic = ElasticNetwork.of(Network(module), images)
    return ElasticSpace(model, elastic.depths, elastic.widths), elastic
