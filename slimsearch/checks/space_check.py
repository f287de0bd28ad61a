"""Check of a space before any training: its choices, whether its networks run, and what they cost."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimsearch import compression
from slimsearch.checks.duration import Duration, estimate
from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import LatencyPredictor, LatencySettings, Limit, Meter, connected_boards, size_kib
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.deployed.deployed_model import onnx_of
from slimsearch.evaluators.network_pipeline import write_file
from slimsearch.loop.evaluation_settings import MEMORY, latency_settings
from slimsearch.loop.own_training import with_own_training
from slimsearch.loop.problem import check_without_data, network_evaluator, networks
from slimsearch.loop.python_objects import PythonObjects
from slimsearch.options.check_names import check_names
from slimsearch.options.configuration import Configuration, device_hosts
from slimsearch.options.recipe_choices import for_runtime
from slimsearch.progress import counted, progress
from slimsearch.record.ranking import Ranking
from slimsearch.record.run_directory import RunDirectory
from slimsearch.search_spaces import ModelSpace
from slimsearch.strategies import StrategySettings
from slimsearch.strategies.local import Local
from slimsearch.temporary import process_folder

# Largest number of combinations for which different networks are counted.
_COUNTED = 20_000
# Networks whose choices are changed one by one, and the time limit for that in seconds.
_CHANGED, _PATIENCE = 3, 60.0
_EXPORTED = 12
_BOARD_PATIENCE = 10.0  # seconds for a board that is busy or does not answer
_TRIED = 4


@dataclass(frozen=True)
class CheckedChoice:
    """One choice of the space.

    Attributes:
        label, values: of the choice.
        layers: number of layers that depend on the choice.
        active: share of the sampled networks in which the choice is active.
        dead: whether other values changed no network; None: not tried.
    """

    label: str
    values: tuple[Any, ...]
    layers: int
    active: float
    dead: bool | None


@dataclass(frozen=True)
class BrokenNetworks:
    """Sampled networks that cannot be built or run, for one reason.

    Attributes:
        count: number of networks.
        message: of the first one.
        always: values that all of them have, and no network that runs.
    """

    count: int
    message: str
    always: dict[str, Any]


@dataclass(frozen=True)
class SpaceCheck:
    """Result of a check of a space for a data set.

    Attributes:
        combinations: number of combinations of all values.
        different: number of different networks; None: too many to count.
        choices: in the order of the space.
        sampled, works: number of random networks, and of those that can be built and run.
        failures: the other networks.
        costs: ``params`` and ``macs`` of each network that runs, and the predicted ``latency_ms`` of a few. With limits
            on them, also ``size_kib``, ``ram_kib`` and ``flash_kib`` of the float32 files of these few.
        within_limits: by limit, the share of the networks that meet it.
        notes: what else was found, in one line each.
    """

    combinations: int
    different: int | None
    choices: tuple[CheckedChoice, ...]
    sampled: int
    works: int
    failures: tuple[BrokenNetworks, ...]
    costs: dict[str, list[float]]
    within_limits: dict[str, float]
    notes: tuple[str, ...] = ()


def checked(configuration: Configuration, samples: int, *, estimated: bool) -> tuple[SpaceCheck, Duration | None]:
    """Check the space of a new run; if `estimated`, also estimate the duration of the search, and predict latencies.

    How long a user's function trains is not known.

    Raises:
        SlimsearchError: an option is invalid, or the space has no networks.
    """
    if configuration.evaluator != "network":
        raise SlimsearchError("check needs networks, and --evaluator has none")
    limits = Ranking.of(configuration).limits
    notes: tuple[str, ...] = ()
    if configuration.co_search and limited_file_costs(limits):
        limits = tuple(limit for limit in limits if limit.metric not in limited_file_costs(limits))
        notes = ("limits on size, RAM and flash are not checked: with --co-search they are for compressed files",)
    check_names(configuration)
    configuration = for_runtime(configuration)
    check_without_data(configuration)
    configuration, objects = with_own_training(configuration, PythonObjects())
    recipe = compression.Recipe.parse(configuration.compress)
    hosts = device_hosts(configuration.device_host if estimated else None)
    boards = connected_boards(hosts, configuration.runtime, configuration.latency_threads)
    space, data = networks(configuration, objects)
    latency = latency_settings(configuration, boards)
    found = check_space(space, data, samples, limits, seed=configuration.seed, predict=estimated, latency=latency)
    found = dataclasses.replace(found, notes=notes)
    if not estimated or found.works < found.sampled or objects.fit is not None:
        return found, None
    workers = configuration.worker_count
    with (
        tempfile.TemporaryDirectory(prefix="slimsearch-", dir=process_folder()) as folder,
        RunDirectory(Path(folder) / "check", create=True) as directory,
    ):
        duration = estimate(
            network_evaluator(configuration, space, data, directory, compressing=False, boards=boards),
            Local(StrategySettings(workers=workers, trial_timeout=configuration.trial_timeout)),
            _different(space, max(_TRIED, workers), np.random.default_rng(configuration.seed)),
            data,
            trials=min(configuration.trials, found.different or configuration.trials),
            epochs=configuration.epochs,
            workers=workers,
            recipe=compression.Recipe() if configuration.co_search else recipe,
            finalists=configuration.top_k,
        )
    return found, duration


def check_space(
    space: ModelSpace, data: Dataset, samples: int, limits: Sequence[Limit] = (), *, seed: int = 0,
    predict: bool, latency: LatencySettings | None = None,
) -> SpaceCheck:  # fmt: skip
    """Check `samples` random networks of a space.

    If `predict`, also predict the latency of a few networks on this machine, or measure it on the boards or in the
    other runtime of `latency`.
    A network without a C file fails if there are limits on its memory.
    """
    latency = latency or LatencySettings()
    rng = np.random.default_rng(seed)
    sampled = [space.sample(rng) for _ in range(samples)]
    active = Counter(label for architecture in sampled for label in architecture)
    runs: list[dict[str, Any]] = []
    fails: list[tuple[dict[str, Any], str]] = []
    costs: dict[str, list[float]] = {"params": [], "macs": []}
    for architecture in counted("building random networks", sampled, samples):
        try:
            params, macs = _costs(space, architecture)
        except SlimsearchError as error:
            fails.append((architecture, str(error)))
        else:
            runs.append(architecture)
            costs["params"].append(params)
            costs["macs"].append(macs)
    metrics = limited_file_costs(limits)
    if (predict or metrics) and runs:
        images = data.normalise(data.train.inputs[:2])
        with tempfile.TemporaryDirectory(prefix="slimsearch-", dir=process_folder()) as folder:
            paths = []
            for number, architecture in enumerate(counted("exporting networks", runs[:_EXPORTED], _EXPORTED)):
                paths.append(Path(folder) / f"{number}{latency.suffix}")
                write_file(Network(space.build(architecture).eval()), paths[-1], images)
            if predict:
                costs["latency_ms"] = _latencies(data, paths, latency)
            for path, architecture in zip(paths, list(runs), strict=False):
                try:
                    add_file_costs(costs, path, metrics)
                except SlimsearchError as error:
                    runs.remove(architecture)
                    fails.append((architecture, str(error)))
    with progress("changing one choice at a time"):
        dead = _dead(space, runs[:_CHANGED])
        layers = space.affected_layers()
    return SpaceCheck(
        space.size,
        sum(1 for _ in space.grid()) if space.size <= _COUNTED else None,
        tuple(
            CheckedChoice(
                choice.label, choice.values, len(layers[choice.label]), active[choice.label] / samples,
                dead.get(choice.label),
            )
            for choice in space.choices
        ),
        samples,
        len(runs),
        grouped(fails, runs),
        costs,
        within(limits, costs),
    )  # fmt: skip


def within(limits: Sequence[Limit], costs: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """By limit, the share of the networks with these costs that meet it."""
    return {
        f"{limit.flag} {limit.bound:g}": float(
            np.mean([limit.broken({limit.metric: value}) is None for value in costs[limit.metric]])
        )
        for limit in limits
        if costs.get(limit.metric)
    }


def _different(space: ModelSpace, count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Up to `count` different random points of a space."""
    found: list[dict[str, Any]] = []
    for _ in range(20 * count):
        point = space.sample(rng)
        if point not in found:
            found.append(point)
        if len(found) == count:
            break
    return found


def _costs(space: ModelSpace, architecture: Mapping[str, Any]) -> tuple[int, int]:
    """Parameters and multiply-accumulates for one image; allocates no weights if the network allows it."""
    import torch

    def counted(device: str) -> tuple[int, int]:
        network = Network(space.check(architecture, device)).without_dead_taps(space.input_shape)
        return network.params, network.macs(torch.zeros(1, *space.input_shape, device=device))

    try:
        return counted("meta")
    except SlimsearchError:  # the forward pass may depend on values
        return counted("cpu")


def limited_file_costs(limits: Sequence[Limit]) -> set[str]:
    """The costs of a file that are limited."""
    return {limit.metric for limit in limits} & {"size_kib", *MEMORY}


def add_file_costs(costs: dict[str, list[float]], path: Path, metrics: set[str]) -> None:
    """Add those costs of an exported file that are in `metrics` to the lists of `costs`.

    Raises:
        SlimsearchError: the file has no C file, and `metrics` has its memory.
    """
    found = {
        "size_kib": size_kib(path),
        **(compression.memory_kib(onnx_of(path)) if metrics.intersection(MEMORY) else {}),
    }
    for name in sorted(metrics):
        costs.setdefault(name, []).append(found[name])


def _latencies(data: Dataset, paths: Sequence[Path], latency: LatencySettings) -> list[float]:
    if latency.boards or latency.runtime != "onnxruntime":
        settings = latency.measurement(data.input_shape, _BOARD_PATIENCE)
        measured = latency.device(Meter(), _BOARD_PATIENCE).measure(paths, settings)
        return [one.median_ms for one in measured.latencies]
    predictor = LatencyPredictor()
    return [predictor.predict(path).ms for path in counted("predicting latencies", paths, len(paths))]


def _dead(space: ModelSpace, architectures: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """By label, whether no other value of the choice changed any of the networks."""
    until = time.monotonic() + _PATIENCE
    found: dict[str, bool] = {}
    for architecture, choice in itertools.product(architectures, space.choices):
        if found.get(choice.label) is False or choice.label not in architecture or time.monotonic() > until:
            continue
        here = _signature(space, architecture)
        same = None
        for value in choice.values:
            if choice.text(value) == choice.text(architecture[choice.label]):
                continue
            try:
                changed = space.canonical({**space.complete(architecture), choice.label: value})
                same = _signature(space, changed) == here
            except SlimsearchError:  # not in the space, or does not run
                continue
            if same is False:
                break
        if same is not None:
            found[choice.label] = same
    return found


def _signature(space: ModelSpace, architecture: Mapping[str, Any]) -> tuple[Any, ...]:
    """Modules, shapes and outputs of a network; equal for equal networks."""
    import torch

    module = space.check(architecture)
    images = torch.randn(1, *space.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = module(images)
    return repr(module), [tuple(p.shape) for p in module.parameters()], logits.tolist()


def grouped(fails: Sequence[tuple[dict[str, Any], str]], runs: Sequence[dict[str, Any]]) -> tuple[BrokenNetworks, ...]:
    """Networks by their error, the most frequent error first."""
    reasons: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for architecture, message in fails:
        reasons.setdefault(_reason(message), []).append((architecture, message))
    found = []
    for members in reasons.values():
        common = dict(members[0][0])
        for architecture, _ in members[1:]:
            common = {label: value for label, value in common.items() if architecture.get(label) == value}
        always = {label: value for label, value in common.items() if not any(_has(one, label, value) for one in runs)}
        found.append(BrokenNetworks(len(members), members[0][1], always))
    return tuple(sorted(found, key=lambda failure: -failure.count))


def _reason(message: str) -> str:
    """An error message without the architecture at its start and without numbers, which differ between networks."""
    _, brace, rest = message.rpartition("}")
    return "".join(c for c in (rest if brace else message) if not c.isdigit())


def _has(architecture: Mapping[str, Any], label: str, value: Any) -> bool:
    return label in architecture and architecture[label] == value
