"""Objects passed from Python in place of names in the options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Given
from slimsearch.options.configuration import (
    CHOICES,
    FROM_PYTHON,
    SPACE_OBJECT,
    Configuration,
    ModelKind,
    space_from_python,
)
from slimsearch.search_spaces import Space, name_of

if TYPE_CHECKING:
    from torch import nn

OWN_TRAINING = ("fit", "score", "lightning")
"""Options that name a user's functions for training and scores."""


@dataclass(frozen=True)
class GivenFromPython:
    """A trained network from Python.

    Attributes:
        module: the network.
        given: what else is known about it.
    """

    module: nn.Module
    given: Given = field(default_factory=Given)


@dataclass(frozen=True)
class PythonObjects:
    """Objects passed from Python in place of names in a configuration.

    Attributes:
        space: what `ModelSpace.load` takes, or without networks a dict of choices or a `Space`; in place of
            ``configuration.space``.
        data: arrays or a PyTorch data set, in place of ``configuration.dataset``.
        evaluate: a function from a candidate to named numbers, in place of ``configuration.evaluator``.
        build: makes the networks of a dict of choices.
        network: a trained network to compress, in place of ``configuration.model``.
        task: a `LearningTask`, in place of ``configuration.task``.
        fit, score, lightning: functions in place of those of the configuration, see `with_own_training`.
    """

    space: Any = None
    data: Any = None
    evaluate: Callable[..., Mapping[str, float]] | None = None
    build: Callable[..., Any] | None = None
    network: GivenFromPython | None = None
    task: Any = None
    fit: Callable[..., Any] | None = None
    score: Callable[..., Any] | None = None
    lightning: Callable[..., Any] | None = None

    def named_in(self, configuration: Configuration) -> Configuration:
        """The options with placeholders for these objects.

        Raises:
            SlimsearchError: `space` is not a space.
        """
        network = None if self.network is None else f"{FROM_PYTHON}:{type(self.network.module).__name__}"
        return configuration.replace(
            space=configuration.space if self.space is None else f"{FROM_PYTHON}:{_name_of_space(self.space)}",
            dataset=configuration.dataset if self.data is None else FROM_PYTHON,
            evaluator=configuration.evaluator if self.evaluate is None else FROM_PYTHON,
            model=network or configuration.model,
            task=configuration.task if self.task is None else FROM_PYTHON,
            **{name: FROM_PYTHON for name in OWN_TRAINING if getattr(self, name) is not None},
        )

    def missing(self, configuration: Configuration) -> tuple[str, str] | None:
        """Description and argument name of an object that the options need and that was not passed, or None."""
        space = space_from_python(configuration.space)
        if space is not None and self.space is None:
            return space, "space"
        if self.network is None and ModelKind.of(configuration.model or "") is ModelKind.PYTHON:
            return "a network", "model"
        if configuration.evaluator == FROM_PYTHON and self.evaluate is None:
            return "a function", "evaluate"
        if configuration.dataset == FROM_PYTHON and self.data is None:
            return "its data", "dataset"
        if configuration.task == FROM_PYTHON and self.task is None:
            return "a learning task", "task"
        for name in OWN_TRAINING:
            if getattr(configuration, name) == FROM_PYTHON and getattr(self, name) is None:
                return f"a function {name}", name
        return None


def _name_of_space(space: Any) -> str:
    if isinstance(space, Space | Mapping):
        return SPACE_OBJECT if isinstance(space, Space) else CHOICES
    if callable(space):
        return name_of(space)
    raise SlimsearchError(
        f"a space is an NNI ModelSpace class, a function define(trial), a dict of choices or a Space, not {space!r}"
    )
