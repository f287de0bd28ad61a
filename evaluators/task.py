"""Interface of evaluators: a task in, an outcome out, both plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.objective import finite_numbers
from slimsearch.search_spaces import Candidate


@dataclass(frozen=True)
class Artifact:
    """A network of an earlier trial, on disk.

    Attributes:
        directory: holds ``network.json``, ``weights.safetensors`` and ``model.onnx``.
        architecture: of the network.
        recipe: compression stages that are already applied to it.
        seed: of its initial weights.
    """

    directory: Path
    architecture: Mapping[str, Any]
    recipe: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Task:
    """One candidate to evaluate.

    Attributes:
        number: of its trial.
        candidate: architecture and recipe.
        fidelity: epochs of training, if it is trained from initial weights.
        seed: of all random numbers of the evaluation.
        directory: for its files; exists.
        start: a trained network of the same architecture that the rest of the recipe is applied to; None: train one.
        teacher: the most accurate network of the run, for distillation.
        epochs_done: epochs that are already recorded, of a trial that is continued.
        inherit: take the weights from the run's supernet instead of training.
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
    """Result of an evaluation.

    Attributes:
        metrics: finite numbers by name, with the unit in the name.
        artifacts: kind to file name in the task's directory, such as "model": "model.onnx".
    """

    metrics: Mapping[str, float]
    artifacts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def checked(cls, result: Any) -> Outcome:
        """The outcome that an evaluator returned.

        Raises:
            SlimsearchError: it is none, a metric is not a finite number, or a file is not in the task's directory.
        """
        if not isinstance(result, Outcome):
            raise SlimsearchError(f"the evaluator returned {type(result).__name__}, not an Outcome")
        metrics, artifacts = finite_numbers(result.metrics), result.artifacts
        if not isinstance(artifacts, Mapping):
            raise SlimsearchError(f"the evaluator's artifacts are {type(artifacts).__name__}, not a dict of file names")
        for kind, name in artifacts.items():
            if not (isinstance(kind, str) and isinstance(name, str)) or name in ("", "..") or set(name) & set("/\\"):
                raise SlimsearchError(f"the evaluator's artifact {kind!r} is {name!r}, not a file name")
        return cls(metrics, dict(artifacts))


class ReportEpoch(Protocol):
    """Callback for the progress of an evaluation."""

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Report the metrics of an epoch; epoch 0 is before training, and can be reported more than once.

        Returns:
            whether the evaluation continues.
        """


class Evaluator(Protocol):
    """Evaluates candidates. It is pickled to worker processes."""

    def evaluate(self, task: Task, *, report: ReportEpoch) -> Outcome:
        """Evaluate `task`; if `report` stops it, the outcome has the metrics known so far.

        Raises:
            Exception: of any kind; the trial is recorded as failed, with the first line of the message.
        """
