"""Learning tasks: one per file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.tasks._learning_task import LearningTask, Targets
from slimsearch.evaluators.tasks._own_score import NeedsLoss, OwnScore
from slimsearch.evaluators.tasks.classification import Classification
from slimsearch.names import load_class

__all__ = ["Classification", "LearningTask", "NeedsLoss", "OwnScore", "Targets", "load_task"]


def load_task(task: Any, **options: Any) -> LearningTask:
    """A learning task by its name, such as ``regression`` or ``path/to/file.py:Class``, or a task as it is.

    Args:
        task: a name, a subclass of `LearningTask` or an object of one.
        options: fields of the task with other values than their defaults.

    Raises:
        SlimsearchError: there is no such task, or it has no such option.
    """
    found = load_class("task", task, "slimsearch.evaluators.tasks") if isinstance(task, str) else task
    if isinstance(found, type) and issubclass(found, LearningTask):
        found = found()
    if not isinstance(found, LearningTask):
        raise SlimsearchError(f"--task '{task}' is not a subclass of slimsearch.LearningTask")
    for option in options:
        if option not in found.__dataclass_fields__:
            raise SlimsearchError(f"--{option.replace('_', '-')} is not an option of --task {found.name}")
    found = replace(found, **options)
    if not found.metrics or not set(found.metrics.values()) <= {"maximize", "minimize"}:
        raise SlimsearchError(f"--task '{task}' has no metrics: a dict from name to 'maximize' or 'minimize'")
    if found.lead and found.lead not in found.metrics:
        raise SlimsearchError(
            f"--task {found.name} has no metric '{found.lead}'; its metrics: {', '.join(found.metrics)}"
        )
    return found
