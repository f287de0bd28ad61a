"""Estimate of the duration of a search on this machine, from short trainings of some of its networks."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, stdev

from slimsearch import compression
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import NetworkEvaluator, Outcome, Task
from slimsearch.evaluators.datasets import Dataset
from slimsearch.progress import progress
from slimsearch.search_spaces import Candidate, Point
from slimsearch.strategies import Failure, Recorded, RunStatus, Strategy
from slimsearch.temporary import process_folder

_STEPS = (4, 16)
_EPOCHS = 3


@dataclass(frozen=True)
class Duration:
    """Durations in seconds, on this machine with the number of workers of the search.

    Attributes:
        start: until a worker begins its first task, imports included.
        trial: one trial, the mean over the trained networks.
        error: standard error of `trial`.
        search: the whole search; its last trials may leave workers idle.
        low, high: `search` with `trial` two standard errors lower or higher.
        compression: the compression of the best candidates.
        tried: number of trained networks.
        trials: number of trials of the search.
    """

    start: float
    trial: float
    error: float
    search: float
    low: float
    high: float
    compression: float
    tried: int
    trials: int


def estimate(
    evaluator: NetworkEvaluator,
    strategy: Strategy,
    architectures: Sequence[Point],
    data: Dataset,
    *,
    trials: int,
    epochs: int,
    workers: int,
    recipe: compression.Recipe,
    finalists: int,
) -> Duration:
    """Estimate the duration of a search: train some networks for two numbers of steps, with all workers busy.

    The two numbers separate the time of a step, of the validation after an epoch, and of the work outside the
    training. Ignores savings by a scheduler or by limits.

    Args:
        evaluator: of the search.
        strategy: drives the evaluation, with the workers of the search.
        architectures: to train; at least one for each worker.
        data: the data set.
        trials, epochs, workers: of the search.
        recipe: of the compression after the search.
        finalists: number of candidates that are compressed.

    Raises:
        SlimsearchError: none of them can be evaluated.
    """
    settings = evaluator.training
    images = min(len(data.train), settings.epoch_images or len(data.train))
    batch = min(settings.batch_size, images)
    short = [min(steps, max(1, images // batch)) for steps in _STEPS]
    with tempfile.TemporaryDirectory(prefix="slimsearch-", dir=process_folder()) as folder:
        probe = _Probe([(point, steps * batch) for point in architectures for steps in short], Path(folder))
        began = time.perf_counter()
        with progress("training some networks for a moment", len(probe.tasks)) as advance:
            probe.ended = advance
            strategy.run(probe, evaluator)
    # The first task of each worker waits until it has started.
    start = min((times.first for times in probe.times.values() if times.first), default=began) - began
    seconds, trained = [], []
    for number in range(0, len(architectures) * 2, 2):
        one, other = probe.times[number], probe.times[number + 1]
        if one.epoch is None or other.epoch is None:
            continue
        step = max(0.0, (other.epoch - one.epoch) / (short[1] - short[0])) if short[1] > short[0] else 0.0
        validation = max(0.0, one.epoch - short[0] * step)
        epoch = images // batch * step + validation
        seconds.append(min(one.outside, other.outside) + epochs * epoch)
        trained.append(epoch)
    if not seconds:
        raise SlimsearchError(f"no network could be trained: {probe.error}")
    trial = mean(seconds)
    error = stdev(seconds) / math.sqrt(len(seconds)) if len(seconds) > 1 else 0.0
    rounds = max(trials / workers, 1.0)
    outside = trial - epochs * mean(trained)
    steps = recipe.steps(epochs)
    after = sum(share * epochs * median(trained) + outside for _, share in steps) * max(
        finalists / workers, 1.0 if steps else 0
    )
    return Duration(
        start, trial, error, start + rounds * trial, start + rounds * max(0.0, trial - 2 * error),
        start + rounds * (trial + 2 * error), after, len(seconds), trials,
    )  # fmt: skip


@dataclass
class _Times:
    """Times of one task: its first report, each epoch, and its end."""

    first: float | None = None
    epochs: list[float] = field(default_factory=list)
    before: float = 0.0
    end: float | None = None

    @property
    def epoch(self) -> float | None:
        """Seconds of an epoch; excludes the first one, which includes one-time work."""
        if self.end is None or len(self.epochs) < 2:
            return None
        return min(after - before for before, after in zip(self.epochs, self.epochs[1:], strict=False))

    @property
    def outside(self) -> float:
        """Seconds before and after the training."""
        assert self.first is not None
        assert self.end is not None
        return self.end - self.epochs[-1] + self.before - self.first


class _Probe:
    """A search that hands out fixed tasks and records times only."""

    def __init__(self, tasks: Sequence[tuple[Point, int]], folder: Path) -> None:
        self.tasks = [
            Task(number, Candidate(dict(point), {}, {"epoch_images": images}), _EPOCHS, number, folder / str(number))
            for number, (point, images) in enumerate(tasks)
        ]
        self._asked = 0
        self.times: dict[int, _Times] = {}
        self.error = "none was evaluated"
        self.ended: Callable[[], None] = lambda: None

    def ask(self) -> Task | None:
        if self._asked == len(self.tasks):
            return None
        task = self.tasks[self._asked]
        self._asked += 1
        task.directory.mkdir()
        self.times[task.number] = _Times()
        return task

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        times, now = self.times[number], time.perf_counter()
        times.first = times.first or now
        if epoch == 0:
            times.before = now
        else:
            times.epochs.append(now)
        return True

    def tell(self, number: int, result: Outcome | Failure) -> None:
        self.ended()
        if isinstance(result, Failure):
            self.error = result.error
        else:
            self.times[number].end = time.perf_counter()

    def offer(self, architecture: Point) -> Task | Recorded | None:
        return None

    def close(self) -> None:
        pass

    def recorded(self, number: int) -> Recorded | None:
        return None

    def status(self) -> RunStatus:
        return RunStatus({}, {}, None)
