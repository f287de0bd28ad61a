"""Evaluation with weights inherited from a supernet."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.deployed.deployed_model import DeployedModel
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.network_evaluator import CHECKPOINT, NetworkEvaluator
from slimsearch.evaluators.supernet.supernet import DESCRIPTION, Supernet, calibration_images, recalibrate
from slimsearch.evaluators.supernet.training import train_supernet
from slimsearch.evaluators.task import Outcome, ReportEpoch, Task
from slimsearch.evaluators.tasks import Classification
from slimsearch.evaluators.training.hardware import computing_on, memory_errors, threads
from slimsearch.evaluators.training.network_training import NetworkTraining
from slimsearch.search_spaces import NniSpace

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class WeightSharingEvaluator:
    """Trains a supernet once; evaluates tasks with ``inherit`` with its weights, and trains the networks of all others.

    Inherited networks have the metrics of `NetworkEvaluator` and ``val_loss``: the mean cross entropy of the exported
    file on the validation split. On `lenet` and mnist5k its ranks agree better with the trained accuracy than those of
    the inherited accuracy. The fidelity of their tasks is ignored.

    Attributes:
        networks: evaluates networks that are trained on their own.
        supernet: folder of the supernet.
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
        networks = self.networks
        if not isinstance(networks.space, NniSpace):
            raise SlimsearchError("weight sharing needs an NNI ModelSpace")
        self._space = networks.space
        loss = functools.partial(validation_loss, runtime=networks.latency.runtime)
        self._inherited = replace(
            networks,
            metrics={"val_loss": loss, **networks.metrics},
            learn=_InheritWeights(networks.space, self.supernet, networks.data_directory),
        )

    @property
    def prepared(self) -> bool:
        """Whether the supernet is trained."""
        return (self.supernet / DESCRIPTION).is_file()

    def prepare(self, *, report: ReportEpoch) -> None:
        """Train the supernet; an interrupted training continues from its last checkpoint."""
        self.supernet.mkdir(parents=True, exist_ok=True)
        meter = Meter()
        settings = self.networks.training
        with memory_errors(), meter.computing(), threads(settings.threads), computing_on(settings.device):
            trained = train_supernet(
                self._space, self.networks.data, settings, epochs=self.epochs, seed=self.seed,
                sampling=self.sampling, on_epoch=report, meter=meter, checkpoint=self.supernet / CHECKPOINT,
            )  # fmt: skip
        trained.save(self.supernet)

    def evaluate(self, task: Task, *, report: ReportEpoch) -> Outcome:
        """Evaluate `task` with inherited weights, or train its network."""
        return (self._inherited if task.inherit else self.networks).evaluate(task, report=report)


class _InheritWeights:
    """Gives a new network the weights of a supernet, which each process loads at first use."""

    def __init__(self, space: NniSpace, supernet: Path, data_directory: Path) -> None:
        self._space, self._directory, self._data_directory = space, supernet, data_directory
        self._loaded: tuple[Supernet, Tensor] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_loaded": None}

    def __call__(self, network: Network, task: Task, training: NetworkTraining) -> Network:
        if self._loaded is None:
            images = calibration_images(Dataset.load(self._data_directory, Classification()))
            self._loaded = Supernet.load(self._directory, self._space), images
        supernet, images = self._loaded
        module = network.copy_module()
        supernet.weights.inherit(module, task.candidate.architecture)
        recalibrate(module, images)
        return Network(module, network.structure, network.quantization)


def validation_loss(path: Path, data: Dataset, runtime: str = "onnxruntime") -> float:
    """Mean loss of the task of an exported file on the validation split."""
    import torch

    model, total = DeployedModel(path, runtime=runtime), 0.0
    for inputs, targets in data.batches(data.validation):
        outputs = torch.from_numpy(model(inputs.numpy())).double()
        total += float(data.task.loss(outputs, torch.from_numpy(targets))) * len(targets)
    return total / len(data.validation)
