"""Networks of one architecture, trained and compressed by scripts; finished ones are taken from their folders."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import slimsearch
from slimsearch import compression
from slimsearch.evaluators import (
    CHECKPOINT,
    MODEL,
    Architectures,
    Artifact,
    Meter,
    NetworkEvaluator,
    Task,
    TrainingSettings,
    device_for,
    measure_latency,
    precision_for,
    use_one_thread,
)
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.training.function_training import Fit
from slimsearch.files import write_json
from slimsearch.search_spaces import Candidate

_RESULT, _BEGUN = "result.json", "begun.json"
_log = logging.getLogger(__name__)

OnEpoch = Callable[[str, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class StoredNetwork:
    """A finished network on disk.

    Attributes:
        name: of its folder.
        artifact: the network, from which a compression can start.
        metrics: of its evaluation.
    """

    name: str
    artifact: Artifact
    metrics: Mapping[str, float]

    @property
    def file(self) -> Path:
        """The exported file."""
        return self.artifact.directory / MODEL


@dataclass
class NetworkFolder:
    """A folder of networks of one architecture, on one data set, each in a folder of its own.

    A network is trained or compressed as in a run, by a `NetworkEvaluator`, unless it is finished already; an
    interrupted training continues from its checkpoint.

    Attributes:
        folder: of all networks.
        space: builds the networks.
        architecture: of all networks.
        data: with its test split, which is not used for training.
        settings: of training.
        on_epoch: called after every epoch, with the network's name.
        fit: a function that trains in place of Slimsearch.
    """

    folder: Path
    space: Architectures
    architecture: Mapping[str, Any]
    data: Dataset
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    on_epoch: OnEpoch = lambda name, epoch, metrics: None
    fit: Fit | None = None

    def __post_init__(self) -> None:
        use_one_thread()
        self.folder.mkdir(parents=True, exist_ok=True)
        stored = self.folder / "data"
        if not (stored / "dataset.json").is_file():
            self.data.without_test().save(stored)
        device = device_for("auto")
        self.settings = replace(self.settings, device=device, precision=precision_for("auto", device))

    def train(self, name: str, epochs: int, seed: int, **settings: Any) -> StoredNetwork:
        """The architecture, trained from new weights."""
        return self._make(name, Task(0, Candidate(self.architecture), epochs, seed, self.folder / name), settings)

    def compress(
        self, name: str, start: StoredNetwork, recipe: str, epochs: int, seed: int, **settings: Any
    ) -> StoredNetwork:
        """`start` after a recipe.

        Args:
            name: of the network's folder.
            start: the network to compress.
            recipe: as for ``--compress``; follows the recipe of `start`.
            epochs: of each stage that trains and has no epochs of its own.
            seed: of everything random.
            settings: fields of `TrainingSettings` that differ.
        """
        whole = {**start.artifact.recipe, **compression.Recipe.parse(recipe).to_dict()}
        task = Task(
            0, Candidate(self.architecture, whole), epochs, seed, self.folder / name, start.artifact, start.artifact
        )
        return self._make(name, task, settings)

    def _make(self, name: str, task: Task, settings: Mapping[str, Any]) -> StoredNetwork:
        origin = task.seed if task.start is None else task.start.seed
        artifact = Artifact(task.directory, self.architecture, task.candidate.recipe, origin)
        recipe = compression.Recipe.from_dict(task.candidate.recipe)
        described = {"recipe": recipe.text(), "epochs": task.fidelity, "seed": task.seed}
        result = task.directory / _RESULT
        if result.is_file():
            known = json.loads(result.read_text(encoding="utf-8"))
            if known["step"] == described:
                return StoredNetwork(name, artifact, known["metrics"])
            _log.warning("%s in the folder was made with other options: it is made again", name)
            result.unlink()
        task.directory.mkdir(parents=True, exist_ok=True)
        begun = task.directory / _BEGUN
        text = json.dumps({**described, **settings})
        if not begun.is_file() or begun.read_text(encoding="utf-8") != text:
            (task.directory / CHECKPOINT).unlink(missing_ok=True)  # of a training with other options
            begun.write_text(text, encoding="utf-8")
        evaluator = NetworkEvaluator(self.space, self.folder / "data", replace(self.settings, **settings), fit=self.fit)

        def report(epoch: int, metrics: Mapping[str, float]) -> bool:
            self.on_epoch(name, epoch, metrics)
            return True

        started = time.process_time()
        outcome = evaluator.evaluate(task, report=report)
        metrics = {**outcome.metrics, "cpu_seconds": time.process_time() - started}
        write_json(result, {"step": described, "metrics": metrics})
        return StoredNetwork(name, artifact, metrics)

    def test_accuracy(self, file: Path) -> float:
        """Accuracy of an exported file on the test split: for reports, not for selection."""
        assert self.data.test is not None
        return slimsearch.accuracy(file, self.data, self.data.test)

    def latencies(self, files: list[Path], batch: int = 1) -> list[float]:
        """Median latency of each file in ms, measured together."""
        with Meter().exclusive():
            measured = measure_latency(files, self.data.input_shape, batch=batch)
        return [latency.median_ms for latency in measured]
