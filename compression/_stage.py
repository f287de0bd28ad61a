"""The interface of compression stages, and training runs that several stages share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, final

from slimsearch.compression._network import Network
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from torch import Tensor, nn


class LossTerm(ABC):
    """A term of the loss. The cross entropy with the labels gets the rest of a total weight of 1."""

    weight: float

    def attach(self, module: nn.Module) -> Sequence[nn.Parameter]:
        """Called with the module before its first step; returns parameters of the term, to be trained with it."""
        return ()

    def look_through(self, images: Iterable[Tensor]) -> None:  # noqa: B027 - optional
        """Called before a training without augmentation, with batches of all its images in order, (N, C, H, W) each."""

    def see(self, chosen: Tensor) -> None:  # noqa: B027 - optional
        """Called before each step, after `look_through`, with the indices of the step's images, (N,) int64."""

    @abstractmethod
    def __call__(self, images: Tensor, logits: Tensor) -> Tensor:
        """(N, C, H, W), (N, num_classes) -> scalar; called right after the module's forward pass."""

    def detach(self) -> None:  # noqa: B027 - optional
        """Called when the training is over."""

    def state(self) -> dict[str, Any]:
        """Tensors and plain values for a checkpoint of the training."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Put back what `state` gave."""


class AfterStep(ABC):
    """A callback after each step of the optimizer."""

    @abstractmethod
    def __call__(self, module: nn.Module, step: int, steps: int) -> None:
        """Called while the module still has the gradients of the step.

        Args:
            module: in training.
            step: index of the step just done, from 0.
            steps: number of steps of the training.
        """

    def state(self) -> dict[str, Any]:
        """Tensors and plain values for a checkpoint of the training."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Put back what `state` gave."""


class Training(Protocol):
    """How a stage trains; an evaluator implements it."""

    @property
    def seed(self) -> int:
        """Seed of everything random in the stage."""

    @property
    def epochs(self) -> int:
        """Epochs that the network was trained for: the length of a stage's training unless the stage has its own."""

    def teacher(self, name: str) -> Network:
        """The network to learn from: "parent", with which the recipe began, or "best", the most accurate of the run.

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
        """The architecture's module with the weights with which its training began.

        Raises:
            SlimsearchError: they are not known.
        """

    def latency_ms(self, network: Network) -> float:
        """Latency of the exported file of `network` for one batch, in ms."""

    def fit(
        self,
        network: Network,
        *,
        epochs: int,
        learning_rate: float | None = None,
        learning_rate_option: str = "--learning-rate",
        losses: Sequence[LossTerm] = (),
        after_step: Sequence[AfterStep] = (),
    ) -> Network:
        """A trained copy of `network`.

        Args:
            network: to train; stays as it is.
            epochs: length of the training.
            learning_rate: peak of the schedule; None for that of the evaluator.
            learning_rate_option: where the user sets it, for the message about a loss that is not finite.
            losses: terms of the loss besides the cross entropy with the labels.
            after_step: callbacks after each step of the optimizer.

        Raises:
            SlimsearchError: the loss is not finite, or a loss term does not fit the network.
        """


class Stage(ABC):
    """One method of compression. Its options are its constructor's arguments, all with defaults.

    A stage keeps the shapes of input and output, returns a new network and leaves the given one as it was. Its
    constructor raises a `SlimsearchError` for a wrong value of an option.
    """

    is_last: ClassVar[bool] = False
    """No other stage can follow."""
    changes_cost: ClassVar[bool] = True
    """Can lower latency or size; otherwise the stage is judged by accuracy alone."""

    @abstractmethod
    def apply(self, network: Network, training: Training) -> Network:
        """The compressed network.

        Raises:
            SlimsearchError: the network cannot be compressed so; the message names the layer and the reason.
        """


@dataclass(frozen=True)
class Part:
    """What a stage adds to a training run.

    Attributes:
        network: to train; the given one where the stage changes nothing before the training.
        losses: terms added to the loss.
        after_step: callbacks after each step of the optimizer.
        finish: makes the result from the trained network.
    """

    network: Network
    losses: Sequence[LossTerm] = ()
    after_step: Sequence[AfterStep] = ()
    finish: Callable[[Network], Network] = lambda network: network


class TrainingStage(Stage):
    """A stage that trains; several can share one training run.

    Attributes:
        epochs: length of the training; None for that of the network's own training.
        learning_rate: peak of the training's schedule; None for that of the evaluator.
    """

    epochs: int | None = None
    learning_rate: float | None = None

    @abstractmethod
    def begin(self, network: Network, training: Training) -> Part:
        """What this stage adds to a training run that starts from `network`.

        Raises:
            SlimsearchError: the network cannot be compressed so; the message names the layer and the reason.
        """

    @final
    def apply(self, network: Network, training: Training) -> Network:
        return train_together([self], network, training)


def require(condition: bool, message: str) -> None:
    """Raise a `SlimsearchError` with `message` unless `condition` holds."""
    if not condition:
        raise SlimsearchError(message)


def check_training(stage: TrainingStage, least_epochs: int = 1) -> None:
    """Check the options that all stages that train have.

    Raises:
        SlimsearchError: one has a wrong value.
    """
    epochs, rate = stage.epochs, stage.learning_rate
    require(epochs is None or epochs >= least_epochs, f"epochs {epochs} is less than {least_epochs}")
    require(rate is None or rate > 0, f"learning_rate {rate} is not above 0")


def train_together(stages: Sequence[TrainingStage], network: Network, training: Training) -> Network:
    """Apply stages in one training run: they begin in order, share one `Training.fit`, and finish in reverse order.

    A stage that must be last begins last, and so finishes first. The learning rate is that of the first stage with one.

    Raises:
        SlimsearchError: a stage cannot be applied, the weights of the loss terms exceed 1, or the loss is not finite.
    """
    stages = sorted(stages, key=lambda stage: stage.is_last)
    begun = []
    for stage in stages:
        begun.append(stage.begin(network, training))
        network = begun[-1].network
    share = sum(term.weight for part in begun for term in part.losses)
    require(share <= 1, f"the weights of the loss terms add up to {share:g}, more than 1: lower them")
    own_rate = next((stage for stage in stages if stage.learning_rate is not None), None)
    option = (
        f"--learning-rate, or give stage '{_name(stages[0])}' a learning_rate of its own"
        if own_rate is None
        else f"the option learning_rate of stage '{_name(own_rate)}'"
    )
    network = training.fit(
        network,
        epochs=shared_epochs(stages, training.epochs),
        learning_rate=None if own_rate is None else own_rate.learning_rate,
        learning_rate_option=option,
        losses=[term for part in begun for term in part.losses],
        after_step=[callback for part in begun for callback in part.after_step],
    )
    for part in reversed(begun):
        network = part.finish(network)
    return network


def _name(stage: Stage) -> str:
    """The name under which a user knows a stage, from its class: ``lsq_plus`` for LsqPlus."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(stage).__name__).lower()


def shared_epochs(stages: Sequence[TrainingStage], default: int) -> int:
    """Length of the training run of `stages`: the most epochs that one of them has, or `default`."""
    given = [stage.epochs for stage in stages if stage.epochs is not None]
    decides = given and (max(given) > 0 or len(given) == len(stages))  # 0 epochs of one stage hold for it alone
    return max(given) if decides else default
