"""What a configuration says about training and about the measurements of files."""

from __future__ import annotations

from collections.abc import Sequence

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Board, LatencySettings, TrainingSettings, UserMetric, device_for, precision_for
from slimsearch.names import load_function
from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.record.run_directory import RunDirectory

MEMORY = ("ram_kib", "flash_kib")
"""Costs of the C file, which are computed if an objective or a limit needs them."""
ENERGY = "energy_mj"
"""Energy of a call, which is measured if an objective needs it."""
_BOARD_MEASUREMENTS = "board_latencies.jsonl"  # file of a run directory: see `BoardMeasurements`


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
        needs(configuration, (ENERGY,)), boards,
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


def needs(configuration: Configuration, metrics: Sequence[str]) -> bool:
    """Whether an objective or a limit is about one of `metrics`."""
    ranking = Ranking.of(configuration)
    names = {*(objective.metric for objective in ranking.objectives), *(limit.metric for limit in ranking.limits)}
    return not names.isdisjoint(metrics)
