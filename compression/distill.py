"""Knowledge distillation with the teacher's outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slimsearch.compression._network import Network
from slimsearch.compression._stage import LossTerm, Part, Training, require
from slimsearch.compression.distillation.features import TEACHERS, DistillationStage, TeacherModule
from slimsearch.compression.distillation.onnx_teacher import OnnxFile
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Distill(DistillationStage):
    """Train towards the teacher's softened probabilities, or for other tasks than classification, its outputs.

    Source: Hinton, Vinyals and Dean 2015: ``weight * T^2 * KL(teacher / T || student / T)`` plus
    ``(1 - weight)`` times the loss of the task. Outputs that are not logits of classes are compared by their mean
    squared difference.

    Joined with `prune`, it is the loss of the fine-tuning, with the unpruned network as teacher. Alone, with the parent
    as teacher, it is self-distillation (born-again networks, Furlanello et al. 2018).

    Attributes:
        teacher: "parent", the network that the recipe began with; "best", the most accurate one of the run; or the path
            of an ONNX file (``.onnx``) that gives outputs of the same shape for the same normalized inputs, run by
            ONNX Runtime on the CPU.
        temperature: T, above 0; of logits.
        weight: share of the soft labels in the loss, in (0, 1].
        epochs: length of the training, by default that of the network's training; stages that share a training run
            use the longest.
        learning_rate: peak of the schedule; by default that of the evaluator.
    """

    temperature: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, f"temperature {self.temperature} is not above 0")

    def begin(self, network: Network, training: Training) -> Part:
        teacher: Callable[[Tensor], Tensor]
        temperature = self.temperature if training.gives_logits else None
        if self.teacher in TEACHERS:
            images = training.calibration[:2]
            teacher = TeacherModule(training.teacher(self.teacher).copy_module(), images)
            _require_logits(f"teacher '{self.teacher}'", teacher(images), images, network)
        else:
            teacher = OnnxLogits(Path(self.teacher), training.calibration[:2], network)
        return Part(network, losses=[SoftLabels(teacher, temperature, self.weight)])


@dataclass
class SoftLabels(LossTerm):
    """The loss term of `Distill`; without augmentation the teacher computes each input's outputs once.

    Without a temperature, outputs are no logits.
    """

    teacher: Callable[[Tensor], Tensor]
    temperature: float | None
    weight: float

    def __post_init__(self) -> None:
        self._known: Tensor | None = None  # outputs of all inputs, (N, ...)
        self._chosen: Tensor | None = None

    def __call__(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        import torch
        import torch.nn.functional as F

        with torch.no_grad():
            known = self._teacher_outputs(inputs)
        if self.temperature is None:
            return (outputs.float() - known).square().mean()
        target = F.log_softmax(known / self.temperature, dim=1)
        student = F.log_softmax(outputs.float() / self.temperature, dim=1)
        divergence = F.kl_div(student, target, reduction="batchmean", log_target=True)
        return divergence * self.temperature**2

    def look_through(self, images: Iterable[Tensor]) -> None:
        import torch

        with torch.no_grad():
            self._known = torch.cat([self.teacher(batch).float() for batch in images])

    def see(self, chosen: Tensor) -> None:
        self._chosen = chosen

    def _teacher_outputs(self, inputs: Tensor) -> Tensor:
        if self._known is None or self._chosen is None:
            return self.teacher(inputs).float()
        return self._known[self._chosen]


class OnnxLogits(OnnxFile):
    """An ONNX file that gives logits.

    Args:
        path: of the file.
        images: (N, C, H, W) float32, an input that the file must accept.
        student: the network to train, which must have the same number of logits.

    Raises:
        SlimsearchError: the file is missing or damaged, or has another input or output.
    """

    def __init__(self, path: Path, images: Tensor, student: Network) -> None:
        super().__init__(path, images)
        _require_logits(self.name, self(images), images, student)

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) float32 -> (N, num_classes) logits on the device of the images."""
        return self.run(images)[0]


def _require_logits(name: str, given: Tensor, images: Tensor, student: Network) -> None:
    """Check that a teacher gives as many logits for `images` as the network to train."""
    import torch

    with torch.no_grad():
        wanted = student.copy_module().eval()(images).shape
    if given.shape != wanted:
        raise SlimsearchError(
            f"{name} gives {tuple(given.shape)} for {len(images)} images, the network {tuple(wanted)}"
        )
