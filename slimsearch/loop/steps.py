"""Networks trained and compressed one after the other, each in a folder of its own and never made twice."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from slimsearch import compression
from slimsearch.evaluators import (
    CHECKPOINT,
    MODEL,
    Architectures,
    Artifact,
    DeployedModel,
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
from slimsearch.files import write_json
from slimsearch.search_spaces import Candidate

_RESULT, _BEGUN = "result.json", "begun.json"
_log = logging.getLogger(__name__)

OnEpoch = Callable[[str, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Step:
    """A network on disk.

    Attributes:
        name: of its folder.
        artifact: what the next step can start from.
        metrics: those of its evaluation.
    """

    name: str
    artifact: Artifact
    metrics: Mapping[str, float]

    @property
    def file(self) -> Path:
        """The exported file."""
        return self.artifact.directory / MODEL


@dataclass
class Steps:
    """Makes networks of one architecture on one data set; what is already in the folder is taken from there.

    Attributes:
        folder: where everything is kept.
        space: builds the networks.
        architecture: of all of them.
        data: with its test split, which no step sees.
        settings: of training.
        on_epoch: told of every epoch, with the step's name.
    """

    folder: Path
    space: Architectures
    architecture: Mapping[str, Any]
    data: Dataset
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    on_epoch: OnEpoch = lambda name, epoch, metrics: None

    def __post_init__(self) -> None:
        use_one_thread()
        self.folder.mkdir(parents=True, exist_ok=True)
        stored = self.folder / "data"
        if not (stored / "dataset.json").is_file():
            self.data.without_test().save(stored)
        device = device_for("auto")
        self.settings = replace(self.settings, device=device, precision=precision_for("auto", device))

    def train(self, name: str, epochs: int, seed: int, **settings: Any) -> Step:
        """The architecture, trained from new weights."""
        return self._make(name, Task(0, Candidate(self.architecture), epochs, seed, self.folder / name), settings)

    def compress(self, name: str, start: Step, recipe: str, epochs: int, seed: int, **settings: Any) -> Step:
        """`start` after a recipe.

        Args:
            name: of the step's folder.
            start: its network is where the recipe begins; the recipe must go on from that of `start`.
            recipe: as for ``--compress``; what `start` went through already is put before it.
            epochs: of each stage that trains and is not told how long.
            seed: of everything random.
            settings: fields of `TrainingSettings` that differ.
        """
        whole = {**start.artifact.recipe, **compression.Recipe.parse(recipe).to_dict()}
        task = Task(
            0, Candidate(self.architecture, whole), epochs, seed, self.folder / name, start.artifact, start.artifact
        )
        return self._make(name, task, settings)

    def _make(self, name: str, task: Task, settings: Mapping[str, Any]) -> Step:
        origin = task.seed if task.start is None else task.start.seed
        artifact = Artifact(task.directory, self.architecture, task.candidate.recipe, origin)
        recipe = compression.Recipe.from_dict(task.candidate.recipe)
        described = {"recipe": recipe.text(), "epochs": task.fidelity, "seed": task.seed}
        result = task.directory / _RESULT
        if result.is_file():
            known = json.loads(result.read_text(encoding="utf-8"))
            if known["step"] == described:
                return Step(name, artifact, known["metrics"])
            _log.warning("%s was made otherwise before, it is made again", name)
            result.unlink()
        task.directory.mkdir(parents=True, exist_ok=True)
        begun = task.directory / _BEGUN
        text = json.dumps({**described, **settings})
        if not begun.is_file() or begun.read_text(encoding="utf-8") != text:
            (task.directory / CHECKPOINT).unlink(missing_ok=True)  # of the training of something else
            begun.write_text(text, encoding="utf-8")
        evaluator = NetworkEvaluator(self.space, self.folder / "data", replace(self.settings, **settings))

        def report(epoch: int, metrics: Mapping[str, float]) -> bool:
            self.on_epoch(name, epoch, metrics)
            return True

        started = time.process_time()
        outcome = evaluator.evaluate(task, report=report)
        metrics = {**outcome.metrics, "cpu_seconds": time.process_time() - started}
        write_json(result, {"step": described, "metrics": metrics})
        return Step(name, artifact, metrics)

    def test_accuracy(self, file: Path) -> float:
        """Of an exported file, on the test split: for what is reported, never for what is chosen."""
        assert self.data.test is not None
        predictions = DeployedModel(file).predict(self.data, self.data.test)
        return float((predictions == self.data.test.labels).mean())

    def latencies(self, files: list[Path], batch: int = 1) -> list[float]:
        """Medians in ms, all files measured in turns."""
        with Meter().exclusive():
            measured = measure_latency(files, self.data.input_shape, batch=batch)
        return [latency.median_ms for latency in measured]
