"""How long a search will take on this machine: some of its networks are trained for a moment, as it would do it."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np

from slimsearch import compression
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import NetworkEvaluator, Outcome, Task
from slimsearch.evaluators.datasets import Dataset
from slimsearch.search_spaces import Candidate, Point, Space
from slimsearch.strategies import Failure, Figures, Recorded, Strategy

_STEPS = (4, 16)
_EPOCHS = 3


@dataclass(frozen=True)
class Duration:
    """Seconds, on this machine with as many workers as the search will have.

    Attributes:
        start: from the start of a worker to its first task's own code, imports included.
        trial: of one candidate, the mean over those that were tried.
        error: its standard error.
        search: of the whole search, the last trials of which may leave workers idle.
        low, high: the same with `trial` two standard errors less or more.
        compression: of the best ones afterwards.
        tried: how many networks this was measured on.
        trials: of the search.
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
    """Train each of some networks for a few steps twice, with all workers busy.

    A trial takes what it takes outside its training, and for each epoch its steps and a look at the validation split;
    the two lengths of the training tell these apart. What a scheduler or a limit saves is not counted.

    Args:
        evaluator: as the search has it.
        strategy: drives it, with the search's workers.
        architectures: drawn from the space; more than there are workers.
        data: that is trained on.
        trials, epochs, workers: of the search.
        recipe: of the compression afterwards.
        finalists: how many are compressed.

    Raises:
        SlimsearchError: none of them can be evaluated.
    """
    settings = evaluator.training
    images = min(len(data.train), settings.epoch_images or len(data.train))
    batch = min(settings.batch_size, images)
    short = [min(steps, max(1, images // batch)) for steps in _STEPS]
    with tempfile.TemporaryDirectory(prefix="slimsearch-") as folder:
        probe = _Probe([(point, steps * batch) for point in architectures for steps in short], Path(folder))
        began = time.perf_counter()
        strategy.run(probe, evaluator)
    # The first one of each worker waits for it to start.
    start = min((times.first for times in probe.times.values() if times.first), default=began) - began
    seconds, trained = [], []
    for number in range(0, len(architectures) * 2, 2):
        one, other = probe.times[number], probe.times[number + 1]
        if one.epoch is None or other.epoch is None:
            continue
        step = max(0.0, (other.epoch - one.epoch) / (short[1] - short[0])) if short[1] > short[0] else 0.0
        look = max(0.0, one.epoch - short[0] * step)
        epoch = images // batch * step + look
        seconds.append(min(one.outside, other.outside) + epochs * epoch)
        trained.append(epoch)
    if not seconds:
        raise SlimsearchError(f"no network could be trained for a moment: {probe.error}")
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
    """Of one task: when its first word came, when each epoch was told, and its end."""

    first: float | None = None
    epochs: list[float] = field(default_factory=list)
    before: float = 0.0
    end: float | None = None

    @property
    def epoch(self) -> float | None:
        """Seconds of an epoch, the first one left out, in which much is done for the first time."""
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
    """A search that asks for what is tried here, and records nothing but times."""

    def __init__(self, tasks: Sequence[tuple[Point, int]], folder: Path) -> None:
        self._tasks = [
            Task(number, Candidate(dict(point), {}, {"epoch_images": images}), _EPOCHS, number, folder / str(number))
            for number, (point, images) in enumerate(tasks)
        ]
        self._asked = 0
        self.times: dict[int, _Times] = {}
        self.error = "none was tried"

    def ask(self) -> Task | None:
        if self._asked == len(self._tasks):
            return None
        task = self._tasks[self._asked]
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
        if isinstance(result, Failure):
            self.error = result.error
        else:
            self.times[number].end = time.perf_counter()

    def offer(self, architecture: Point) -> Task | Recorded | None:
        return None

    def close(self) -> None:
        """It proposes nothing."""

    def recorded(self, number: int) -> Recorded | None:
        return None

    def figures(self) -> Figures:
        return Figures({}, {}, None)


def drawn(space: Space, count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """So many different points of a space, drawn at random; fewer where there are no more."""
    found: list[dict[str, Any]] = []
    for _ in range(20 * count):
        point = space.sample(rng)
        if point not in found:
            found.append(point)
        if len(found) == count:
            break
    return found
