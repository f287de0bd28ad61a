"""What an evaluation itself computes, and what it waits for."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slimsearch.evaluators import Evaluator, Outcome, Report, Task


@dataclass(frozen=True)
class BusyClock:
    """Another evaluator, its times among the metrics.

    ``busy_seconds`` is processor time of the process. It cannot count waiting: for the answer to a report, for somebody
    who measures latency, for the disk, or for a core that something else has. So it is less than the time spent in
    training, evaluation and measuring, never more; evaluations use one thread. ``answer_seconds`` were spent waiting
    for answers to reports, and ``queue_seconds`` for a core (0 where the system does not say). ``began`` and ``ended``
    are seconds since the epoch, and ``process`` is the process's number: the first evaluation of each has the imports
    too.
    """

    evaluator: Evaluator

    def evaluate(self, task: Task, *, report: Report) -> Outcome:
        """As the other one does."""
        answers = 0.0

        def timed(epoch: int, metrics: Mapping[str, float]) -> bool:
            nonlocal answers
            asked = time.perf_counter()
            go_on = report(epoch, metrics)
            answers += time.perf_counter() - asked
            return go_on

        began, busy, queue = time.time(), time.process_time(), _queued()
        outcome = self.evaluator.evaluate(task, report=timed)
        times = {
            "busy_seconds": time.process_time() - busy, "answer_seconds": answers,
            "queue_seconds": _queued() - queue, "began": began, "ended": time.time(), "process": float(os.getpid()),
        }  # fmt: skip
        return Outcome({**outcome.metrics, **times}, outcome.artifacts)


def _queued() -> float:
    """Seconds that this thread was ready to run and had no core, on Linux."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
