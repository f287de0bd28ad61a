"""The evaluator of a run whose candidates are first judged with weights from a supernet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.network_evaluator import CHECKPOINT, NetworkEvaluator
from slimsearch.evaluators.supernet.supernet import DESCRIPTION, SupernetEvaluator
from slimsearch.evaluators.supernet.training import train_supernet
from slimsearch.evaluators.task import Outcome, Report, Task
from slimsearch.evaluators.training.processor import threads
from slimsearch.search_spaces import ModelSpace


@dataclass
class WeightSharingEvaluator:
    """Trains a supernet once, evaluates tasks that inherit with its weights, and trains the networks of all others.

    Attributes:
        networks: evaluates what is trained on its own.
        supernet: the folder of the supernet.
        epochs: of its training.
        sampling: of its training, see `train_supernet`.
        seed: of its training.
    """

    networks: NetworkEvaluator
    supernet: Path
    epochs: int
    sampling: str = "sandwich"
    seed: int = 0

    def __post_init__(self) -> None:
        own = self.networks
        if not isinstance(own.space, ModelSpace):
            raise SlimsearchError("a supernet is trained for the networks of an NNI ModelSpace")
        self._inherited = SupernetEvaluator(
            own.space, own.data_directory, self.supernet, own.training, own.latency, own.metrics
        )

    @property
    def prepared(self) -> bool:
        """Whether the supernet is there."""
        return (self.supernet / DESCRIPTION).is_file()

    def prepare(self, *, report: Report) -> None:
        """Train the supernet, from its last checkpoint where there is one."""
        assert isinstance(self.networks.space, ModelSpace)
        self.supernet.mkdir(parents=True, exist_ok=True)
        meter = Meter()
        with meter.computing(), threads(self.networks.training.threads):
            trained = train_supernet(
                self.networks.space, self.networks.data, self.networks.training, epochs=self.epochs, seed=self.seed,
                sampling=self.sampling, on_epoch=report, meter=meter, checkpoint=self.supernet / CHECKPOINT,
            )  # fmt: skip
        trained.save(self.supernet)

    def evaluate(self, task: Task, *, report: Report) -> Outcome:
        """Evaluate `task` as it says: with inherited weights, or trained on its own."""
        if task.inherit:
            return self._inherited.evaluate(task, report=report)
        return self.networks.evaluate(task, report=report)
