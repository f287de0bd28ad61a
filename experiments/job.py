"""A run from its configuration to its report: the one place where all parts meet."""

from __future__ import annotations

import datetime
import inspect
import itertools
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compression
from evaluators import (
    LatencySettings,
    NetworkEvaluator,
    TrainingSettings,
    UserMetric,
    device_for,
    precision_for,
)
from evaluators.datasets import Dataset, load_dataset
from experiments import environment, report
from experiments.compression_phase import CompressionPhase
from experiments.configuration import RESUMABLE, Configuration, flag
from experiments.display import Display, Silent
from experiments.finalists import finalists, measure_finalists
from experiments.phases import Phases
from experiments.ranking import Ranking
from experiments.record import Record
from experiments.result import Result
from experiments.run_directory import RunDirectory
from experiments.search import ArchitectureSearch, refuse_if_nothing_is_left
from experiments.tables import shown
from search_spaces import ModelSpace
from slimsearch_errors import SlimsearchError
from slimsearch_names import absolute, load_class, load_function
from strategies import Search, Strategy
from strategies.samplers import Sampler, load_sampler

IN_MEMORY = "<python>"
"""Stands in config.yaml for a class or data set that was handed over from Python."""

_KNOWN_METRICS = ("val_accuracy", "latency_ms", "size_kib", "params", "macs", "training_seconds")


@dataclass(frozen=True)
class _Parts:
    """Everything that a run is made of and that can be wrong, made before anything is written."""

    configuration: Configuration
    ranking: Ranking
    recipe: compression.Recipe
    sampler: Sampler
    strategy: Strategy
    data: Dataset
    space: ModelSpace
    metrics: Mapping[str, UserMetric]
    environment: dict[str, Any]


def start(
    configuration: Configuration, *, space: Any = None, data: Any = None, display: Display | None = None
) -> Result:
    """Begin a new run and carry it to its end.

    Args:
        configuration: the options.
        space: an NNI ModelSpace class, in place of ``configuration.space``.
        data: arrays or a PyTorch data set, in place of ``configuration.dataset``.
        display: told of every change; silent by default.

    Raises:
        SlimsearchError: something is wrong; nothing has been written if it could be seen beforehand.
    """
    configuration = configuration.replace(
        space=_named(space) if space is not None else absolute(configuration.space),
        strategy=absolute(configuration.strategy),
        sampler=absolute(configuration.sampler),
        metrics=_with_absolute_paths(configuration.metrics),
        dataset=IN_MEMORY if data is not None else _absolute_folder(configuration.dataset),
        data_root=str(Path(configuration.data_root).expanduser().resolve()) if configuration.data_root else None,
    )
    parts = _prepare(configuration, space, data)
    path = Path(configuration.run_dir) if configuration.run_dir else default_directory(configuration.space)
    with RunDirectory(path, create=True) as directory:
        directory.write_json("environment.json", parts.environment)
        parts.configuration.replace(run_dir=None).write(directory.config)  # from here on it is a run
        return _carry_out(parts, directory, display or Silent())


def resume(
    path: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    space: Any = None,
    data: Any = None,
    display: Display | None = None,
) -> Result:
    """Go on with a run: its running trials are run again, its finished ones stay as they are.

    Args:
        path: of the run directory.
        changes: other values for trials, timeout, workers, trial_timeout or retries.
        space, data: again, where the run was begun with a class or data from Python.
        display: told of every change; silent by default.

    Raises:
        SlimsearchError: it cannot be resumed; nothing has been changed.
    """
    display = display or Silent()
    with RunDirectory(path, create=False) as directory:
        for name in changes or {}:
            if name not in RESUMABLE:
                allowed = ", ".join(flag(option) for option in RESUMABLE)
                raise SlimsearchError(f"{flag(name)} cannot change when a run is resumed; what can: {allowed}")
        configuration = Configuration.read(directory.config).replace(**(changes or {}))
        if IN_MEMORY in configuration.space and space is None:
            raise SlimsearchError(f"'{path}' was begun from Python with a class; resume it there with that class")
        if configuration.dataset == IN_MEMORY and data is None:
            raise SlimsearchError(f"'{path}' was begun from Python with its data; resume it there with that data")
        before = environment.read(directory)
        # What the processor is used for was chosen once, and is recorded: it stays.
        pinned = {"device": before["device"], "precision": before["precision"]}
        parts = _prepare(configuration.replace(**pinned), space, data)
        if before["dataset"]["fingerprint"] != parts.environment["dataset"]["fingerprint"]:
            raise SlimsearchError(f"the data set is not the one that '{path}' was begun with: its hash differs")
        if before["choices"] != parts.environment["choices"]:
            labels = environment.changed_choices(before, parts.environment)
            raise SlimsearchError(f"the space is not the one that '{path}' was begun with: {labels}")
        for line in environment.differences(before, parts.environment):
            display.warn(f"the environment has changed: {line}")
        configuration.write(directory.config)
        return _carry_out(parts, directory, display)


def _prepare(configuration: Configuration, space: Any, data: Any) -> _Parts:
    """Make and check every part, the cheap ones first."""
    ranking = Ranking.of(configuration)
    recipe = compression.parse(configuration.compress)
    if configuration.int8_target != "any":
        recipe = compression.with_option(recipe, "target", configuration.int8_target)
    sampler = load_sampler(configuration.sampler)
    strategy_class = load_class("strategy", configuration.strategy, "strategies")
    strategy = strategy_class(workers=configuration.worker_count, trial_timeout=configuration.trial_timeout)
    metrics = _user_metrics(configuration.metrics)
    for objective in ranking.objectives:
        if objective.metric not in (*_KNOWN_METRICS, *metrics):
            raise SlimsearchError(
                f"objective '{objective.metric}' is not recorded; known: {', '.join((*_KNOWN_METRICS, *metrics))}, "
                "or your own by --metrics name=path/to/file.py:function"
            )
    device = device_for(configuration.device)
    precision = precision_for(configuration.precision, device)
    dataset = load_dataset(
        data if data is not None else configuration.dataset,
        root=configuration.data_root,
        download=configuration.download,
        image_size=configuration.image_size,
    )
    shape, classes = dataset.input_shape, len(dataset.classes)
    model_space = (
        ModelSpace(space, shape, classes) if space is not None else ModelSpace.load(configuration.space, shape, classes)
    )
    model_space.check(next(model_space.grid()))
    # The recipe itself, not the name of a file that may change or be elsewhere when the run is resumed.
    configuration = configuration.replace(compress=compression.text_of(recipe))
    return _Parts(
        configuration, ranking, recipe, sampler, strategy, dataset, model_space, metrics,
        environment.describe(configuration, model_space, dataset, device, precision),
    )  # fmt: skip


def _carry_out(parts: _Parts, directory: RunDirectory, display: Display) -> Result:
    """Search, compress, measure the finalists, report; also after Ctrl-C, with what there is."""
    configuration, ranking = parts.configuration, parts.ranking
    record = Record(directory.open_study(ranking.objectives), parts.space, ranking.objectives, display.update)
    parts.data.without_test().save(directory.scratch / "data")
    latency = LatencySettings(configuration.latency_batch, configuration.latency_threads)
    evaluator = NetworkEvaluator(
        parts.space,
        directory.scratch / "data",
        TrainingSettings(
            batch_size=configuration.batch_size,
            learning_rate=configuration.learning_rate,
            augmentation=configuration.augment,
            device=parts.environment["device"],
            precision=parts.environment["precision"],
        ),
        latency,
        parts.metrics,
    )

    def fix_targets(targets: Mapping[str, float]) -> None:
        text = ",".join(f"{name}={value!r}" for name, value in targets.items())
        Configuration.read(directory.config).replace(targets=text).write(directory.config)

    deadline = time.monotonic() + configuration.timeout if configuration.timeout is not None else None
    search = ArchitectureSearch(
        parts.space, parts.sampler, ranking, record, directory,
        trials=configuration.trials, epochs=configuration.epochs, seed=configuration.seed, deadline=deadline,
        retries=configuration.retries, on_targets=fix_targets,
    )  # fmt: skip

    def search_phase() -> Search:
        display.phase("search", min(configuration.trials, parts.space.size), record.trials, search.ranking)
        return search

    def compression_phase() -> Search:
        phase = CompressionPhase(
            parts.recipe, top_k=configuration.top_k, max_drop=configuration.max_drop, ranking=search.ranking,
            record=record, directory=directory, data=parts.data, seed=configuration.seed,
            retries=configuration.retries,
        )  # fmt: skip
        display.phase("compression", phase.length, record.trials, search.ranking)
        return phase

    with display.open(directory.path):
        try:
            parts.strategy.run(Phases(iter((search_phase, compression_phase))), evaluator)
            if search.exhausted:
                display.note("every candidate of the space has been tried")
            refuse_if_nothing_is_left(search.ranking, record)
            chosen = finalists(search.ranking, record, configuration.top_k)
            if {trial.number for trial in chosen} != record.finalists:
                display.note(f"measuring {len(chosen)} finalists together, and reading the test split")
                measure_finalists(chosen, record, directory, parts.data, latency)
        except KeyboardInterrupt:
            display.warn(f"interrupted; go on with --resume {shown(directory.path)}")
            raise
        finally:
            models = report.write(directory, record, search.ranking, configuration, parts.environment)
    result = Result(directory.path, tuple(record.trials), tuple(models))
    display.result(result, search.ranking)
    return result


def _user_metrics(text: str | None) -> dict[str, UserMetric]:
    found: dict[str, UserMetric] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        name, equals, location = part.partition("=")
        if not equals:
            raise SlimsearchError(f"--metrics '{part}' is not of the form name=path/to/file.py:function")
        function = load_function("metric", location.strip())
        if not callable(function):
            raise SlimsearchError(f"--metrics '{part}': {location} is not a function")
        found[name.strip()] = function
    return found


def _with_absolute_paths(metrics: str | None) -> str | None:
    parts = [part.partition("=") for part in (metrics or "").split(",")]
    return ",".join(f"{name}{equals}{absolute(location.strip())}" for name, equals, location in parts) or None


def _named(space: Any) -> str:
    if not inspect.isclass(space):
        raise SlimsearchError(f"a space is an NNI ModelSpace class, not {space!r}")
    return f"{IN_MEMORY}:{space.__qualname__}"


def _absolute_folder(name: str) -> str:
    folder = Path(name).expanduser()
    return str(folder.resolve()) if ("/" in name or "\\" in name) and folder.is_dir() else name


def default_directory(space: str) -> Path:
    """runs/<space>-<date>-<time>, with a number where two runs begin in the same second."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{re.split('[:.]', space)[-1]}-{stamp}"
    paths: Iterator[Path] = itertools.chain(
        [Path("runs") / name], (Path("runs") / f"{name}-{i}" for i in itertools.count(2))
    )
    return next(path for path in paths if not path.exists())
