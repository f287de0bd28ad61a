"""The interfaces of compression stages and of their training, and training runs that several stages share."""

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
    """A loss term besides the loss of the task, which has the rest of a total weight of 1."""

    weight: float

    def attach(self, module: nn.Module) -> Sequence[nn.Parameter]:
        """Called with the module before the first step; returns the term's own parameters to train."""
        return ()

    def look_through(self, images: Iterable[Tensor]) -> None:  # noqa: B027 - optional
        """Called before a training without augmentation, with all its inputs in order, in batches (N, ...)."""

    def see(self, chosen: Tensor) -> None:  # noqa: B027 - optional
        """Called before each step, after `look_through`, with the indices of the step's inputs, (N,) int64."""

    @abstractmethod
    def __call__(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """(N, ...) inputs, (N, ...) outputs -> scalar; called right after the module's forward pass."""

    def detach(self) -> None:  # noqa: B027 - optional
        """Called after the training."""

    def state(self) -> dict[str, Any]:
        """Tensors and plain values for a checkpoint of the training."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Put back what `state` gave."""


class AfterStep(ABC):
    """A callback after each step of the optimizer."""

    def attach(self, module: nn.Module) -> None:  # noqa: B027 - optional
        """Called with the module before the first step, and before `restore`."""

    @abstractmethod
    def __call__(self, module: nn.Module, step: int, steps: int) -> None:
        """Called while the module still has the gradients of the step.

        Args:
            module: in training.
            step: index of the step just done, from 0.
            steps: number of steps of the training.
        """

    def has_finished(self) -> bool:
        """Whether `smaller` can be called: it has set weights to zero that stay zero for the rest of the training."""
        return False

    def smaller(self, module: nn.Module) -> tuple[nn.Module, Mapping[str, Tensor]] | None:
        """The module without the weights that stay zero, with which the training goes on; None: it cannot be made.

        Optional for a training to call, between two steps, once; without, the weights are removed at the end.

        Args:
            module: in training; stays unchanged.

        Returns:
            a module on the CPU; and by the name of each changed parameter a mask of the removed values, which can be
            expanded to its former shape.
        """
        return None

    def state(self) -> dict[str, Any]:
        """Tensors and plain values for a checkpoint of the training."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Put back what `state` gave."""


class Training(Protocol):
    """The training that an evaluator provides to stages."""

    @property
    def seed(self) -> int:
        """Seed of everything random in the stage."""

    @property
    def epochs(self) -> int:
        """Epochs of the network's training; the default for a stage's training."""

    def teacher(self, name: str) -> Network:
        """The teacher network: "parent", the start of the recipe, or "best", the most accurate network of the run.

        Raises:
            SlimsearchError: there is no teacher of that name.
        """

    @property
    def calibration(self) -> Tensor:
        """Normalized inputs of the training split, (N, ...) float32."""

    @property
    def examples(self) -> tuple[Tensor, Tensor]:
        """Normalized inputs of the training split, (N, ...) float32, and their targets, (N, ...)."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of the task, a scalar."""

    @property
    def gives_logits(self) -> bool:
        """Whether outputs are logits of classes, (N, num_classes)."""

    def initial(self) -> nn.Module:
        """The architecture's module with its initial weights.

        Raises:
            SlimsearchError: they are unknown.
        """

    def latency_ms(self, network: Network) -> float:
        """Latency of the exported file of `network`, in ms."""

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
            network: the start; stays unchanged.
            epochs: length of the training.
            learning_rate: peak of the schedule; None for that of the evaluator.
            learning_rate_option: how the user sets it, for the message about a loss that is not finite.
            losses: terms of the loss besides that of the task.
            after_step: callbacks after each step of the optimizer.

        Raises:
            SlimsearchError: the loss is not finite, or a loss term does not fit the network.
        """


class Stage(ABC):
    """A compression method. Its options are its constructor's arguments, all with defaults.

    A stage preserves the shapes of input and output, and returns a new network without changing the given one. Its
    constructor raises `SlimsearchError` for a wrong value of an option.
    """

    is_last: ClassVar[bool] = False
    """Whether no other stage can follow."""
    changes_cost: ClassVar[bool] = True
    """Whether the stage can lower latency or size; otherwise only accuracy decides if its result is kept."""

    @property
    def form(self) -> str | None:
        """The `Quantization.form` that the stage gives a network; None: it does not quantize."""
        return None

    @abstractmethod
    def apply(self, network: Network, training: Training) -> Network:
        """The compressed network.

        Raises:
            SlimsearchError: the stage does not apply to this network; the message names the layer and the reason.
        """


@dataclass(frozen=True)
class Part:
    """A stage's contribution to a training run.

    Attributes:
        network: the network to train; the given one if the stage changes nothing before the training.
        losses: loss terms.
        after_step: callbacks after each step of the optimizer.
        finish: converts the trained network to the result.
    """

    network: Network
    losses: Sequence[LossTerm] = ()
    after_step: Sequence[AfterStep] = ()
    finish: Callable[[Network], Network] = lambda network: network


class TrainingStage(Stage):
    """A stage that trains; several can share one training run.

    Attributes:
        epochs: length of the training; None for that of the network's training.
        learning_rate: peak of the training's schedule; None for that of the evaluator.
    """

    epochs: int | None = None
    learning_rate: float | None = None

    @abstractmethod
    def begin(self, network: Network, training: Training) -> Part:
        """This stage's contribution to a training run that starts from `network`.

        Raises:
            SlimsearchError: the stage does not apply to this network; the message names the layer and the reason.
        """

    @final
    def apply(self, network: Network, training: Training) -> Network:
        return train_together([self], network, training)


def plain(network: Network, training: Training) -> Network:
    """`network` with plain weights and without dead taps, as stages get it."""
    return network.folded().without_dead_taps(training.calibration.shape[1:])


def require(condition: bool, message: str) -> None:
    """Raise a `SlimsearchError` with `message` unless `condition` holds."""
    if not condition:
        raise SlimsearchError(message)


def check_training(stage: TrainingStage, least_epochs: int = 1) -> None:
    """Validate the common options of stages that train.

    Raises:
        SlimsearchError: an option has a wrong value.
    """
    epochs, rate = stage.epochs, stage.learning_rate
    require(epochs is None or epochs >= least_epochs, f"epochs {epochs} is less than {least_epochs}")
    require(rate is None or rate > 0, f"learning_rate {rate} is not above 0")


def train_together(stages: Sequence[TrainingStage], network: Network, training: Training) -> Network:
    """Apply stages in one training run: they begin in order, share one `Training.fit`, and finish in reverse order.

    A last stage begins last, and so finishes first. The learning rate is that of the first stage with one.

    Raises:
        SlimsearchError: a stage cannot be applied, the weights of the loss terms exceed 1, or the loss is not finite.
    """
    stages = sorted(stages, key=lambda stage: stage.is_last)
    begun = []
    network = plain(network, training)
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
    """The published name of a stage, such as ``lsq_plus`` for LsqPlus."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(stage).__name__).lower()


def shared_epochs(stages: Sequence[TrainingStage], default: int) -> int:
    """Length of the training run of `stages`: the maximum of their epochs, or `default`."""
    given = [stage.epochs for stage in stages if stage.epochs is not None]
    decides = given and (max(given) > 0 or len(given) == len(stages))  # 0 epochs apply to a stage alone
    return max(given) if decides else default
