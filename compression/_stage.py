"""A stage: a network in, a network out; and what a stage that trains adds to a training run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, final

from slimsearch.compression._network import Network
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from torch import Tensor, nn


class LossTerm(ABC):
    """A term of the loss. The cross entropy with the labels gets what is left of a total weight of 1."""

    weight: float

    def attach(self, module: nn.Module) -> Sequence[nn.Parameter]:
        """Told of the module before its first step; returns parameters of the term's own, to be trained with it."""
        return ()

    def look_through(self, images: Iterable[Tensor]) -> None:  # noqa: B027 - it may be all the same
        """Shown all training images in order, (N, C, H, W) a batch, where they stay as they are all the time."""

    def see(self, chosen: Tensor) -> None:  # noqa: B027 - it may be all the same
        """Told, after `look_through`, which images come next: their places in that order, (N,) int64."""

    @abstractmethod
    def __call__(self, images: Tensor, logits: Tensor) -> Tensor:
        """(N, C, H, W), (N, num_classes) -> scalar; called right after the module's forward pass."""

    def detach(self) -> None:  # noqa: B027 - there may be nothing to do
        """Told when the training is over."""

    def state(self) -> dict[str, Any]:
        """Tensors and plain values that an interrupted training needs to go on."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - there may be nothing to do
        """Put back what `state` gave."""


class AfterStep(ABC):
    """Something done after each step of the optimizer."""

    @abstractmethod
    def __call__(self, module: nn.Module, step: int, steps: int) -> None:
        """Called with the module, its gradients still those of this step, the step just done, and their number."""

    def state(self) -> dict[str, Any]:
        """Tensors and plain values that an interrupted training needs to go on."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - there may be nothing to do
        """Put back what `state` gave."""


class Training(Protocol):
    """How a stage trains: declared here, implemented by an evaluator and handed in."""

    @property
    def seed(self) -> int:
        """Seed of everything random in the stage."""

    @property
    def epochs(self) -> int:
        """How long the network was trained: the length of a stage's training unless it is given."""

    def teacher(self, name: str) -> Network:
        """The network to learn from: "parent", the one that the recipe began with, or "best", the run's best.

        Raises:
            SlimsearchError: there is none of that name.
        """

    @property
    def calibration(self) -> Tensor:
        """(N, C, H, W) float32: normalised images of the training split."""

    @property
    def examples(self) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) float32 and (N,) int64: normalised images of the training split and their labels."""

    def initial(self) -> nn.Module:
        """The architecture's module with the weights that its training began with.

        Raises:
            SlimsearchError: they are not known.
        """

    def latency_ms(self, network: Network) -> float:
        """Measured with the exported file of `network`."""

    def fit(
        self,
        network: Network,
        *,
        epochs: int,
        learning_rate: float | None = None,
        losses: Sequence[LossTerm] = (),
        after_step: Sequence[AfterStep] = (),
    ) -> Network:
        """A trained copy of `network`; `learning_rate` is the peak of the schedule, or None for the default.

        Raises:
            SlimsearchError: the loss is not finite, or a loss term does not fit the network.
        """


class Stage(ABC):
    """One method of compression. Its options are its constructor's arguments, all with defaults.

    A stage keeps the shape of input and output, returns a new network and leaves the given one as it was.
    """

    is_last: ClassVar[bool] = False
    """Nothing can be applied to the result."""
    changes_cost: ClassVar[bool] = True
    """Latency or size can gain by it; otherwise accuracy is what it is judged by."""

    @abstractmethod
    def apply(self, network: Network, training: Training) -> Network:
        """The compressed network.

        Raises:
            SlimsearchError: this network cannot be compressed so; the line says which layer and why.
        """


@dataclass(frozen=True)
class Part:
    """What a stage adds to a training run.

    Attributes:
        network: the network to train; the given one where nothing of it changes.
        losses: terms added to the loss.
        after_step: what is done after each step of the optimizer.
        finish: the result, from the trained network.
    """

    network: Network
    losses: Sequence[LossTerm] = ()
    after_step: Sequence[AfterStep] = ()
    finish: Callable[[Network], Network] = lambda network: network


class TrainingStage(Stage):
    """A stage that trains; several can share one training run."""

    epochs: int | None = None
    learning_rate: float | None = None

    @abstractmethod
    def begin(self, network: Network, training: Training) -> Part:
        """What this stage adds to a run that starts from `network`."""

    @final
    def apply(self, network: Network, training: Training) -> Network:
        return train_together([self], network, training)


def train_together(stages: Sequence[TrainingStage], network: Network, training: Training) -> Network:
    """Apply `stages` in one training run: they begin in order, one fit has everybody's terms, they finish in reverse.

    What nothing can follow begins last, and so finishes first.
    """
    parts = []
    stages = sorted(stages, key=lambda stage: stage.is_last)
    for stage in stages:
        parts.append(stage.begin(network, training))
        network = parts[-1].network
    share = sum(term.weight for part in parts for term in part.losses)
    if share > 1:
        raise SlimsearchError(f"the weights of the loss terms add up to {share:g}, more than 1: lower them")
    rates = [stage.learning_rate for stage in stages if stage.learning_rate is not None]
    network = training.fit(
        network,
        epochs=shared_epochs(stages, training.epochs),
        learning_rate=rates[0] if rates else None,
        losses=[term for part in parts for term in part.losses],
        after_step=[callback for part in parts for callback in part.after_step],
    )
    for part in reversed(parts):
        network = part.finish(network)
    return network


def shared_epochs(stages: Sequence[TrainingStage], default: int) -> int:
    """How long stages train that share a run, `default` where none is told."""
    given = [stage.epochs for stage in stages if stage.epochs is not None]
    told = given and (max(given) > 0 or len(given) == len(stages))  # one that wants none does not decide for others
    return max(given) if told else default
