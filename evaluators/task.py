"""What goes into an evaluator and what comes out, all of it plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from slimsearch.search_spaces import Candidate


@dataclass(frozen=True)
class Artifact:
    """A network that an earlier trial left on disk.

    Attributes:
        directory: holds ``network.json``, ``weights.safetensors`` and ``model.onnx``.
        architecture: of the network.
        recipe: what of a recipe has already been applied to it.
        seed: from which its architecture's initial weights were drawn.
    """

    directory: Path
    architecture: Mapping[str, Any]
    recipe: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Task:
    """One candidate to evaluate.

    Attributes:
        number: of the trial that records it.
        candidate: architecture and recipe.
        fidelity: epochs of training, where it is trained from the start.
        seed: of everything random in the evaluation.
        directory: where its files go; exists.
        start: a network of the same architecture that the recipe goes on from, or None to train one.
        teacher: the most accurate network of the run, for a distillation that asks for it.
        epochs_done: how many are recorded already, of a trial that is continued.
        inherit: weights come from the run's supernet in place of training.
    """

    number: int
    candidate: Candidate
    fidelity: int
    seed: int
    directory: Path
    start: Artifact | None = None
    teacher: Artifact | None = None
    epochs_done: int = 0
    inherit: bool = False


@dataclass(frozen=True)
class Outcome:
    """What an evaluation found.

    Attributes:
        metrics: named numbers, with units in their names.
        artifacts: kind to file name in the task's directory ("model": "model.onnx").
    """

    metrics: Mapping[str, float]
    artifacts: Mapping[str, str] = field(default_factory=dict)


class Report(Protocol):
    """How an evaluation tells of its progress, and learns whether to go on."""

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Called with epoch 0 and all that is known before training, then after every epoch; False: stop."""


class Evaluator(Protocol):
    """A candidate in, named numbers out. It travels to worker processes by value."""

    def evaluate(self, task: Task, *, report: Report) -> Outcome:
        """Evaluate `task`; what was stopped by `report` comes back with the metrics known so far.

        Raises:
            Exception: anything; the trial is then recorded as failed, with the error's line.
        """
