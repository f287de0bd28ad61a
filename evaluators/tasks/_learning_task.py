"""The interface of learning tasks: loss, metrics, and what the exported file's output means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from slimsearch.packed import named, size_of, unpacked

if TYPE_CHECKING:
    from torch import Tensor

    from slimsearch.evaluators.datasets import Dataset, Split

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Targets:
    """The targets of all examples as a task reads them.

    Attributes:
        values: (N, ...), of the type that `LearningTask.loss` takes.
        names: of the outputs: classes, labels or target columns.
    """

    values: Array
    names: tuple[str, ...]


@dataclass(frozen=True)
class LearningTask(ABC):
    """What networks learn: one task in one file of this folder, a frozen dataclass whose fields are plain values.

    A built-in's name is its file's; a user's is ``path/to/file.py:Class``. The fields are in the metadata of exported
    files, so that predictions can be read without the data.

    Attributes:
        lead: the metric that ranks networks and decides whether a compression stage is kept; "": the first one.
    """

    lead: str = ""

    metrics: ClassVar[Mapping[str, str]]
    """Direction of each metric by name, "maximize" or "minimize"."""

    augmentations: ClassVar[tuple[str, ...]] = ("none",)
    """Augmentations that are right for the targets, see `slimsearch.evaluators.training.augmentation.NAMED`."""

    targets_move: ClassVar[bool] = False
    """Whether targets are (N, H, W), one for each pixel, and move with the images."""

    gives_logits: ClassVar[bool] = False
    """Whether an output is a row of class logits, so that distillation compares softmax probabilities."""

    outputs: ClassVar[Mapping[str, tuple[int, ...]]] = MappingProxyType({})
    """Names and shapes, for one example, of the outputs of a network that gives several, as a dict or a tuple in this
    order. The methods get them packed, (N, values), see `named`. Empty for one output."""

    def named(self, outputs: Any) -> dict[str, Any]:
        """The parts (N, ...) of packed outputs (N, values), an array or a tensor, by their names in `outputs`."""
        return unpacked(outputs, named(self.outputs))

    @property
    def name(self) -> str:
        """Name of the task."""
        return type(self).__name__.lower()

    def leading(self) -> tuple[str, str]:
        """Name and direction of the leading metric."""
        name = self.lead or next(iter(self.metrics))
        return name, self.metrics[name]

    @abstractmethod
    def read(self, targets: Array, names: Sequence[str] = ()) -> Targets:
        """Check and convert the targets of a source.

        Args:
            targets: (N, ...).
            names: of the outputs, if the source has some.

        Raises:
            SlimsearchError: they are not targets of this task; the message says what would be.
        """

    def fitted(self, targets: Array) -> Self:
        """The task with what it takes from the targets of the training split, such as their scale."""
        return self

    def strata(self, targets: Array) -> Array:
        """(N,) int: the groups that each split has in equal shares."""
        return np.zeros(len(targets), dtype=np.int64)

    def output_shape(self, outputs: int, input_shape: Sequence[int]) -> tuple[int, ...] | None:
        """Shape of a network's output for one example; None: any.

        Args:
            outputs: number of names of the targets; spaces get it as ``num_classes``.
            input_shape: of one example.
        """
        return (size_of(named(self.outputs)) or outputs,)

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar. `outputs` are float32."""

    @abstractmethod
    def predictions(self, outputs: Array) -> Array:
        """(N, ...) outputs of a file -> (N, ...) predictions, in the units of the targets."""

    @abstractmethod
    def examples(self, outputs: Array, targets: Array) -> Array:
        """(N, K): for each example, the numbers that the metrics are computed from.

        Its first `paired` columns, which are stored for each candidate, are enough for the leading metric. If they are
        of one column of booleans, its mean is the leading metric.
        """

    def measured(self, predict: Callable[[Array], Array], data: Dataset, split: Split) -> Array:
        """`examples` of a whole split.

        Args:
            predict: (N, ...) float32, normalized -> (N, ...) outputs, by a file or a network.
            data: the data set.
            split: its validation or test split.
        """
        batches = data.batches(split)
        return np.concatenate([self.examples(predict(inputs.numpy()), targets) for inputs, targets in batches])

    @property
    def paired(self) -> int | None:
        """Number of columns of `examples` that `leading_value` needs; None: all."""
        return None

    @abstractmethod
    def scores(self, examples: Array) -> dict[str, float]:
        """All metrics of some examples, the leading one first."""

    def leading_value(self, examples: Array) -> float:
        """The leading metric of some examples, of which only the first `paired` columns are given."""
        return self.scores(examples)[self.leading()[0]]

    def metadata(self) -> dict[str, Any]:
        """What a file's metadata says of the task, as values for JSON."""
        return asdict(self)
