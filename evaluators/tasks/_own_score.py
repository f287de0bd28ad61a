"""A user's score function in place of a learning task, for networks that the user trains too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.errors import SlimsearchError, described
from slimsearch.evaluators.calling import call_by_name
from slimsearch.evaluators.tasks._learning_task import Array, LearningTask, Targets

if TYPE_CHECKING:
    from torch import Tensor

    from slimsearch.evaluators.datasets import Dataset, Split

_FORMS = "a number, an array of one number per example, or a dict of either, the leading metric first"
_DIRECTIONS = {"min": "minimize", "max": "maximize"}


class NeedsLoss(SlimsearchError):
    """A compression stage needs the loss of a task, and networks are trained by a function of the user's."""


@dataclass(frozen=True)
class OwnScore(LearningTask):
    """What networks learn is known to the user's functions alone: one trains them, and `function` scores them.

    Attributes:
        function: ``score(predict)``; `predict` is a module from inputs (N, ...), an array or a tensor, to outputs. It
            returns a number, an array of one number per example (N,), or a dict of either; names may end in ``:min``.
            It also gets those of these arguments that it has: ``data``, the data set, and ``split``, "validation" or
            "test".
        metrics: direction of each metric that the function returns, see `of`.
    """

    function: Callable[..., Any] = float
    metrics: Mapping[str, str] = field(default_factory=dict)  # type: ignore[misc]

    @classmethod
    def of(cls, function: Callable[..., Any], predict: Callable[[Array], Array], data: Dataset) -> OwnScore:
        """The task with the metrics that `function` returns for some network.

        Raises:
            SlimsearchError: the function fails, or returns something else.
        """
        own = cls(function=function)
        directions, _ = _read(own._call(predict, data, "validation"))
        return cls(function=function, metrics=directions)

    def measured(self, predict: Callable[[Array], Array], data: Dataset, split: Split) -> Array:
        """(N, K): one column for each metric, one row for each example, or one row in all."""
        directions, columns = _read(self._call(predict, data, "test" if split is data.test else "validation"))
        if list(directions.items()) != list(self.metrics.items()):
            raise SlimsearchError(
                f"score returned {', '.join(directions)}, and {', '.join(self.metrics)} for the first network: it must "
                "return the same metrics for every network"
            )
        return columns

    def _call(self, predict: Callable[[Array], Array], data: Dataset, split: str) -> Any:
        from slimsearch.evaluators.deployed.outputs_module import OutputsModule

        with described("score failed"):
            return call_by_name(self.function, OutputsModule(predict), {"data": data, "split": split})

    def read(self, targets: Array, names: Sequence[str] = ()) -> Targets:
        return Targets(targets, tuple(names))

    def output_shape(self, outputs: int, input_shape: Sequence[int]) -> None:
        return None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        raise NeedsLoss("there is no loss: networks are trained by a function of yours (fit)")

    def predictions(self, outputs: Array) -> Array:
        return outputs

    def examples(self, outputs: Array, targets: Array) -> Array:
        raise SlimsearchError("examples are known to score alone, which scores a whole split")

    def scores(self, examples: Array) -> dict[str, float]:
        found = dict(zip(self.metrics, examples.mean(axis=0).tolist(), strict=True))
        return {self.leading()[0]: found[self.leading()[0]], **found}

    def metadata(self) -> dict[str, Any]:
        return {"lead": self.leading()[0], "metrics": dict(self.metrics)}


def _read(result: Any) -> tuple[dict[str, str], Array]:
    """Directions of the metrics that a score function returned, and their values (N, K).

    Raises:
        SlimsearchError: it returned something else.
    """
    named = dict(result) if isinstance(result, Mapping) else {"score": result}
    directions: dict[str, str] = {}
    columns = []
    for label, value in named.items():
        name, colon, given = str(label).partition(":")
        if (colon and given not in _DIRECTIONS) or not name.isprintable() or not name or "," in name:
            raise SlimsearchError(f"score returned a metric called '{label}'; a name may end in :min or :max")
        directions[name] = _DIRECTIONS[given or "max"]
        columns.append(_column(name, value))
    lengths = {len(column) for column in columns}
    if len(lengths) != 1:
        raise SlimsearchError(
            "score returned "
            + ("no metric" if not columns else f"metrics of {lengths} examples")
            + f"; needed: {_FORMS}"
        )
    return directions, np.stack(columns, axis=1)


def _column(name: str, value: Any) -> Array:
    value = value.detach().cpu() if hasattr(value, "detach") else value
    try:
        column = np.atleast_1d(np.asarray(value, dtype=np.float64))
        if value is None or isinstance(value, str | bytes) or column.ndim != 1 or len(column) == 0:
            raise ValueError
    except (TypeError, ValueError):
        raise SlimsearchError(f"score returned {type(value).__name__} as '{name}'; needed: {_FORMS}") from None
    if not np.isfinite(column).all():
        raise SlimsearchError(f"score returned nan or infinity as '{name}'")
    return column
