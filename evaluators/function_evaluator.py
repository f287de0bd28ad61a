"""Evaluation with a user's Python function."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.objective import finite_numbers
from slimsearch.evaluators.task import Outcome, ReportEpoch, Task
from slimsearch.search_spaces import Space


@dataclass
class FunctionEvaluator:
    """Calls ``evaluate(candidate)``, which returns a dict of named numbers.

    The candidate is a dict from label to value, with the training hyper-parameters that the space has.

    The function also gets those of these arguments that it has: ``epochs`` (the fidelity of the trial), ``seed``,
    ``directory`` (a folder for the trial's files) and ``report``. ``report(epoch, metrics)`` records the metrics of an
    epoch, from 1, and returns False if the trial should end.

    Attributes:
        function: the user's function; pickled to worker processes by value.
        space: of the candidates.
    """

    function: Callable[..., Mapping[str, float]]
    space: Space

    def evaluate(self, task: Task, *, report: ReportEpoch) -> Outcome:
        """Call the function.

        Raises:
            SlimsearchError: it does not return a dict of finite numbers.
        """
        known = dict(self.space.known(task.candidate.architecture))
        if not report(0, known):
            return Outcome(known)
        checked = _CheckedReport(report)
        offered = {"epochs": task.fidelity, "seed": task.seed, "report": checked, "directory": task.directory}
        try:
            # The first argument is the candidate, whatever its name.
            parameters = list(inspect.signature(self.function).parameters)[1:]
        except (TypeError, ValueError):  # a function without a signature, written in C
            parameters = []
        arguments = {name: value for name, value in offered.items() if name in parameters}
        metrics = self.function({**task.candidate.architecture, **task.candidate.training}, **arguments)
        if checked.stopped:
            return Outcome(known)
        return Outcome({**known, **finite_numbers(metrics)})


class _CheckedReport:
    """The ``report`` argument of a user's function: checks its values, and remembers whether the trial was stopped."""

    def __init__(self, report: ReportEpoch) -> None:
        self._report = report
        self.stopped = False

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        try:
            number = operator.index(epoch)
        except TypeError:
            number = 0
        if number < 1:
            raise SlimsearchError(f"report(epoch, metrics): epochs are counted from 1, not {epoch!r}")
        self.stopped = self.stopped or not self._report(number, finite_numbers(metrics))
        return not self.stopped
