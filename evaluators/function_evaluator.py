"""Evaluation with a user's Python function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from slimsearch.evaluators.calling import CheckedReport, call_by_name
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
        checked = CheckedReport(report)
        offered = {"epochs": task.fidelity, "seed": task.seed, "report": checked, "directory": task.directory}
        metrics = call_by_name(self.function, {**task.candidate.architecture, **task.candidate.training}, offered)
        if checked.stopped:
            return Outcome(known)
        return Outcome({**known, **finite_numbers(metrics)})
