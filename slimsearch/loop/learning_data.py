"""The learning task and the data set of a configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DIRECTIONS
from slimsearch.evaluators.datasets import Dataset, is_unlabelled, load_dataset, unlabelled
from slimsearch.evaluators.tasks import LearningTask, OwnScore, load_task
from slimsearch.loop.given_network import normalised
from slimsearch.loop.python_objects import PythonObjects
from slimsearch.names import built_in_names
from slimsearch.options.configuration import DEFAULT_OBJECTIVES, FROM_PYTHON, Configuration


def with_task(configuration: Configuration, objects: PythonObjects) -> Configuration:
    """The options with the leading metric of the task in place of the accuracy of the default objectives.

    Raises:
        SlimsearchError: there is no such task.
    """
    task = learning_task(configuration, objects)
    metric, direction = task.leading()
    from_python = isinstance(objects.data, Dataset) and configuration.dataset == FROM_PYTHON and objects.task is None
    if from_python and not isinstance(task, OwnScore):
        known = task.name in built_in_names("slimsearch.evaluators.tasks")
        configuration = configuration.replace(task=task.name if known else FROM_PYTHON)
    if configuration.objectives != DEFAULT_OBJECTIVES or metric == "accuracy":
        return configuration
    leading = f"val_{metric}" if f"val_{metric}" in DIRECTIONS else f"val_{metric}:{direction[:3]}"
    return configuration.replace(objectives=DEFAULT_OBJECTIVES.replace("val_accuracy", leading))


def learning_task(configuration: Configuration, objects: PythonObjects) -> LearningTask:
    """What is learned; led by the first objective that is one of its metrics.

    Raises:
        SlimsearchError: there is no such task, or it has not an option that is given.
    """
    given = objects.data.task if isinstance(objects.data, Dataset) else objects.task
    options: dict[str, Any] = {}
    if configuration.class_weights != "none":
        options["class_weights"] = configuration.class_weights
    if configuration.label_smoothing:
        options["label_smoothing"] = configuration.label_smoothing
    if isinstance(objects.data, Dataset) and configuration.task not in ("classification", FROM_PYTHON, given.name):
        raise SlimsearchError(
            f"the data set was read for --task {given.name}: read it with task='{configuration.task}'"
        )
    task = load_task(configuration.task if given is None else given, **options)
    names = [text.strip().partition(":")[0].removeprefix("val_") for text in configuration.objectives.split(",")]
    lead = next((name for name in names if name in task.metrics), task.lead)
    return task if lead in ("", task.leading()[0]) else replace(task, lead=lead)


def dataset_of(configuration: Configuration, objects: PythonObjects) -> Dataset:
    """The data set of a run, with its task, normalized as the options say.

    Args:
        configuration: the options.
        objects: passed from Python; their data set takes the place of that of the options.

    Raises:
        SlimsearchError: there is no such data set, it cannot be read, or an option or the task does not suit it.
    """
    task = learning_task(configuration, objects)
    if isinstance(objects.data, Dataset):
        return normalised(replace(objects.data, task=task.fitted(objects.data.train.targets)), configuration)
    if is_unlabelled(objects.data):
        return normalised(unlabelled(objects.data), configuration)
    loaded = load_dataset(
        objects.data if objects.data is not None else configuration.dataset,
        root=configuration.data_root,
        download=configuration.download,
        image_size=configuration.image_size,
        drop_duplicates=configuration.drop_duplicates,
        task=task,
        input_kind=configuration.input_kind,
        target_column=configuration.target_column,
        group_by=configuration.group_by,
    )
    return normalised(loaded, configuration)
