"""A stage: a network in, a network out; and what a stage that trains adds to a training run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, final

from compression._network import Network

if TYPE_CHECKING:
    from torch import Tensor, nn

AfterStep = Callable[["nn.Module", int, int], None]
"""Called with the module, the step just done, and the number of steps of the run."""


class LossTerm(Protocol):
    """A term of the loss. The cross entropy with the labels gets what is left of a total weight of 1."""

    weight: float

    def __call__(self, images: Tensor, logits: Tensor) -> Tensor:
        """(N, C, H, W), (N, num_classes) -> scalar."""


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

    def fit(
        self,
        network: Network,
        *,
        epochs: int,
        learning_rate: float | None = None,
        losses: Sequence[LossTerm] = (),
        after_step: Sequence[AfterStep] = (),
    ) -> Network:
        """A trained copy of `network`; `learning_rate` is the peak of the schedule, or None for the default."""


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


class TrainingStage(Stage):
    """A stage that trains, in four parts, so that neighbours can share one training run."""

    epochs: int | None = None
    learning_rate: float | None = None

    def start(self, network: Network, training: Training) -> Network:
        """The network to train, a new value."""
        return network

    def losses(self, training: Training) -> Sequence[LossTerm]:
        """Terms that this stage adds to the loss."""
        return ()

    def after_step(self, training: Training) -> Sequence[AfterStep]:
        """What this stage does after each step of the optimizer."""
        return ()

    def finish(self, network: Network, training: Training) -> Network:
        """The result, from the trained network."""
        return network

    @final
    def apply(self, network: Network, training: Training) -> Network:
        return train_together([self], network, training)


def train_together(stages: Sequence[TrainingStage], network: Network, training: Training) -> Network:
    """Apply `stages` in one training run: all starts, one fit with everybody's terms, all finishes."""
    for stage in stages:
        network = stage.start(network, training)
    given = [stage.epochs for stage in stages if stage.epochs is not None]
    rates = [stage.learning_rate for stage in stages if stage.learning_rate is not None]
    network = training.fit(
        network,
        epochs=max(given) if given else training.epochs,
        learning_rate=rates[0] if rates else None,
        losses=[term for stage in stages for term in stage.losses(training)],
        after_step=[callback for stage in stages for callback in stage.after_step(training)],
    )
    for stage in reversed(stages):
        network = stage.finish(network, training)
    return network
