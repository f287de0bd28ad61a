"""Discrete-event simulation of a search on a cluster: one driver serves any number of workers.

Assumptions:

- The driver is one thread and handles one event after the other, in the order in which they came.
- Each event takes the driver a constant time (`Costs`), whatever the trial.
- A trial reports after each of its epochs, which are equally long, and waits for the answer.
- When a trial ends, the driver records it and begins the next one on the same worker, which gets it `dispatch` seconds
  later. There is always a next one.
- Trials last from half to one and a half times their mean, evenly drawn from a seed.
- Workers do not slow each other down, none is lost, and all have their process from the beginning: neither network,
  shared disk nor memory is in the way. To measure latency, which only trials of the same machine wait for, is part of
  the trials' time.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

# Rounds of all workers before the measured window and in it, and the least number of trials in it.
_WARM_UP, _MEASURED, _FEWEST = 3, 10, 1000
_MOST = 2**20


@dataclass(frozen=True)
class Costs:
    """Seconds of the driver's thread.

    Attributes:
        proposal: of a candidate.
        record: the record of a trial's begin, costs and end.
        engine: Ray Tune's loop, per trial.
        record_report: the record of an epoch.
        engine_report: Ray Tune's loop, per report.
    """

    proposal: float
    record: float
    engine: float
    record_report: float = 0.0
    engine_report: float = 0.0

    @property
    def turn(self) -> float:
        """From the end of a trial to the begin of the next one."""
        return self.proposal + self.record + self.engine

    @property
    def report(self) -> float:
        """From a report to its answer."""
        return self.record_report + self.engine_report

    def trial(self, epochs: int) -> float:
        """The whole cost of a trial."""
        return self.turn + epochs * self.report

    def parts(self, epochs: int) -> dict[str, float]:
        """The cost of a trial by its causes."""
        return {
            "proposals": self.proposal,
            "record": self.record + epochs * self.record_report,
            "engine's loop": self.engine + epochs * self.engine_report,
        }


@dataclass(frozen=True)
class Workload:
    """The trials of the workers.

    Attributes:
        seconds: mean work of a trial.
        epochs: of a trial, at least 1.
        dispatch: seconds from the begin of a trial in the driver to its begin in the worker.
    """

    seconds: float
    epochs: int
    dispatch: float = 0.0


@dataclass(frozen=True)
class ClusterLoad:
    """The load of a cluster.

    Attributes:
        trials_per_hour: finished trials.
        utilisation: share of the workers' time in trials' work.
        driver: share of time that the driver is busy.
    """

    trials_per_hour: float
    utilisation: float
    driver: float


def simulate(workers: int, trials: Workload, costs: Costs, seed: int = 0) -> ClusterLoad:
    """The load in the steady state."""
    rng = random.Random(seed)
    # Duration of one trial on each worker.
    waiting = trials.seconds + trials.dispatch + costs.trial(trials.epochs)
    once = max(waiting, workers * costs.trial(trials.epochs))
    begin = _WARM_UP * once
    end = begin + max(_MEASURED, _FEWEST / workers) * once
    # Requests to the driver: time, worker, reports before the trial's end, and seconds between them.
    asked: list[tuple[float, int, int, float]] = [(0.0, worker, 0, 0.0) for worker in range(workers)]
    free, ended, working, driving = 0.0, 0, 0.0, 0.0

    def inside(start: float, stop: float) -> float:
        return max(0.0, min(stop, end) - max(start, begin))

    while asked[0][0] < end:
        at, worker, left, epoch = asked[0]
        start = max(at, free)
        if left == 0:
            free = start + costs.turn
            ended += begin <= start < end
            left = trials.epochs
            epoch = trials.seconds * rng.uniform(0.5, 1.5) / trials.epochs
            goes_on = free + trials.dispatch
        else:
            free = goes_on = start + costs.report
            left -= 1
        driving += inside(start, free)
        if left == 0:  # the trial ends after its last report
            heapq.heapreplace(asked, (goes_on, worker, 0, 0.0))
        else:
            working += inside(goes_on, goes_on + epoch)
            heapq.heapreplace(asked, (goes_on + epoch, worker, left, epoch))
    window = end - begin
    return ClusterLoad(3600 * ended / window, working / (workers * window), driving / window)


def enough(trials: Workload, costs: Callable[[int], Costs], share: float) -> int:
    """The largest number of workers that one driver keeps busy for `share` of their time; 0 if there is none.

    From the bounds of a closed queue (Denning and Buzen 1978); the simulation stays a little below them.

    Args:
        trials: of the workers.
        costs: of the driver by number of workers, not decreasing.
        share: of the workers' time, above 0.
    """

    def fed(workers: int) -> bool:
        service = costs(workers).trial(trials.epochs)
        once = max(trials.seconds + trials.dispatch + service, workers * service)
        return trials.seconds >= share * once

    least, most = 0, 1
    while most < _MOST and fed(most):
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fed(middle) else (least, middle)
    return least
