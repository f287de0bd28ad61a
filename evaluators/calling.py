"""Calls of users' functions, which get those of the offered arguments that they have."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.objective import finite_numbers


def call_by_name(function: Callable[..., Any], first: Any, offered: Mapping[str, Any]) -> Any:
    """The result of ``function(first, ...)`` with those of the `offered` arguments that the function names.

    Args:
        function: the user's; its first parameter may have any name.
        first: its first argument.
        offered: further arguments by name.
    """
    try:
        parameters = list(inspect.signature(function).parameters)[1:]
    except (TypeError, ValueError):  # a function without a signature, written in C
        parameters = []
    return function(first, **{name: value for name, value in offered.items() if name in parameters})


class CheckedReport:
    """The ``report`` argument of a user's function: checks its values, and remembers whether the trial was stopped."""

    def __init__(self, report: Callable[[int, Mapping[str, float]], bool]) -> None:
        self._report = report
        self.stopped = False
        self.last = 0
        """The last epoch that was reported."""

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        try:
            number = operator.index(epoch)
        except TypeError:
            number = 0
        if number < 1:
            raise SlimsearchError(f"report(epoch, metrics): epochs are counted from 1, not {epoch!r}")
        self.last = number
        self.stopped = self.stopped or not self._report(number, finite_numbers(metrics, "report got"))
        return not self.stopped
