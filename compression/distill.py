"""Knowledge distillation with soft labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compression._stage import LossTerm, Training, TrainingStage

if TYPE_CHECKING:
    from torch import Tensor, nn


_TEACHERS = ("parent", "best")


@dataclass(frozen=True)
class Distill(TrainingStage):
    """Train towards the teacher's softened probabilities.

    Source: Hinton, Vinyals and Dean 2015: ``weight * T^2 * KL(teacher / T || student / T)`` plus
    ``(1 - weight)`` times the cross entropy with the labels.

    Next to `prune` it is the loss of the fine-tuning, with the unpruned network as teacher. Alone, with the parent as
    teacher, it is self-distillation (born-again networks, Furlanello et al. 2018).

    Attributes:
        teacher: "parent", the network that the recipe began with, or "best", the most accurate one of the run.
        temperature: T, above 0.
        weight: share of the soft labels in the loss, in (0, 1].
        epochs: length of the training, by default as long as the network was trained; next to another stage that
            trains, the longer of the two counts.
        learning_rate: peak of the schedule; by default that of the evaluator.
    """

    changes_cost: ClassVar[bool] = False

    teacher: str = "parent"
    temperature: float = 2.0
    weight: float = 0.5
    epochs: int | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if self.teacher not in _TEACHERS:
            raise ValueError(f"teacher '{self.teacher}' is none of {', '.join(_TEACHERS)}")
        if self.temperature <= 0:
            raise ValueError(f"temperature {self.temperature} is not above 0")
        if not 0 < self.weight <= 1:
            raise ValueError(f"weight {self.weight} is not in (0, 1]")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"epochs {self.epochs} is less than 1")

    def losses(self, training: Training) -> Sequence[LossTerm]:
        return [SoftLabels(training.teacher(self.teacher).copy_module().eval(), self.temperature, self.weight)]


@dataclass
class SoftLabels:
    """The loss term of `Distill`."""

    teacher: nn.Module
    temperature: float
    weight: float

    def __call__(self, images: Tensor, logits: Tensor) -> Tensor:
        import torch
        import torch.nn.functional as F

        with torch.no_grad():
            target = F.log_softmax(self.teacher(images).float() / self.temperature, dim=1)
        student = F.log_softmax(logits.float() / self.temperature, dim=1)
        divergence = F.kl_div(student, target, reduction="batchmean", log_target=True)
        return divergence * self.temperature**2
