"""A function of the user's as an evaluator."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.objective import finite
from slimsearch.evaluators.task import Outcome, Report, Task
from slimsearch.search_spaces import Space

_OFFERED = ("epochs", "seed", "report", "directory")


@dataclass
class FunctionEvaluator:
    """Calls ``evaluate(candidate)``, which gives a dict of named numbers.

    A function that has them as arguments also gets ``epochs`` (the fidelity of the trial), ``seed``, ``directory`` (a
    folder of the trial's own) and ``report``: ``report(epoch, metrics)`` says how far it is, from epoch 1 on, and
    gives False where the trial is to end.

    Attributes:
        function: the user's; it travels to worker processes by value.
        space: what it evaluates points of.
    """

    function: Callable[..., Mapping[str, float]]
    space: Space

    def evaluate(self, task: Task, *, report: Report) -> Outcome:
        """Call the function.

        Raises:
            SlimsearchError: it does not give a dict of finite numbers.
        """
        known = dict(self.space.known(task.candidate.architecture))
        if not report(0, known):
            return Outcome(known)
        told = _Told(report)
        offered = {"epochs": task.fidelity, "seed": task.seed, "report": told, "directory": task.directory}
        # The first argument is the candidate, whatever it is called.
        parameters = list(inspect.signature(self.function).parameters)[1:]
        arguments = {name: offered[name] for name in _OFFERED if name in parameters}
        found = self.function(dict(task.candidate.architecture), **arguments)
        if told.stopped:
            return Outcome(known)
        return Outcome({**known, **_numbers(found)})


class _Told:
    """Remembers whether it has said that a trial is to end."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.stopped = False

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        try:
            number = operator.index(epoch)
        except TypeError:
            number = 0
        if number < 1:
            raise SlimsearchError(f"report(epoch, metrics): epochs are counted from 1 on, not {epoch!r}")
        self.stopped = self.stopped or not self._report(number, _numbers(metrics))
        return not self.stopped


def _numbers(found: Any) -> dict[str, float]:
    if not isinstance(found, Mapping):
        raise SlimsearchError(f"evaluate gave {type(found).__name__}, not a dict of named numbers")
    metrics = {}
    for name, value in found.items():
        try:
            if isinstance(value, str | bytes):
                raise TypeError
            metrics[str(name)] = float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # the last one: a tensor of several elements
            shown = " ".join(repr(value).split())
            raise SlimsearchError(f"evaluate gave '{name}': {shown:.80}, which is no number") from None
    wrong = finite(metrics)
    if wrong is not None:
        raise SlimsearchError(f"metric '{wrong}' is {metrics[wrong]}")
    return metrics
