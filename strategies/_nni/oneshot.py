"""NNI's one-shot strategies: a worker trains a supernet, and the architectures it ranks best are trained."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Evaluator, Outcome, ReportEpoch, Task
from slimsearch.files import write_json
from slimsearch.reading import mismatch, read_json
from slimsearch.search_spaces import Candidate, NniSpace, Point
from slimsearch.strategies._pool.workers import Workers
from slimsearch.strategies._proposer import Exhausted, ProposerSearch
from slimsearch.strategies._strategy import (
    SUPERNET_TASK,
    Failure,
    Search,
    StrategySettings,
    Traits,
    space_of,
    supernet_folder,
)

if TYPE_CHECKING:
    from torch import Tensor

    from slimsearch.strategies._nni.supernet import OneShotSupernet

_log = logging.getLogger(__name__)

_ARCHITECTURES = "architectures.json"


class ImageSplit(Protocol):
    """Images (N, C, H, W) uint8 and labels (N,) int64."""

    inputs: Any
    targets: Any


class ImageData(Protocol):
    """Training data of a supernet."""

    train: ImageSplit

    def normalise(self, images: Any) -> Tensor:
        """(N, C, H, W) uint8 -> float32, the input of the run's networks."""


@runtime_checkable
class ImageEvaluator(Evaluator, Protocol):
    """An evaluator with a space of networks and training data."""

    @property
    def space(self) -> NniSpace:
        """The space of the networks."""

    @property
    def data(self) -> ImageData:
        """The data set; the supernet uses the training split only, since the validation split scores its results."""


@dataclass
class OneShot(ABC):
    """Trains a supernet, then proposes its best architectures, each of which is trained on its own.

    The supernet is trained for accuracy only; the proposed architectures are scored by all objectives and limits of the
    run. It is trained with Adam at 1e-3 in fp32 on one CPU thread, in one worker without a time limit. Its log and the
    best architectures are stored in the run directory, so that a resumed run does not train it again.

    Attributes:
        epochs: of the supernet's training.
        batch_size: images per step.
    """

    NAME: ClassVar[str]
    traits: ClassVar[Traits] = Traits(proposes=True, needs_networks=True, needs_nni=True)
    HELD_OUT: ClassVar[float] = 0.5
    """Share of the training split that trains or scores architectures, not weights."""
    OFFERED: ClassVar[int] = 1
    """Number of best architectures to train, not counting those that fail or are ruled out."""
    RANKED: ClassVar[int] = 0
    """Number of random architectures to rank with the supernet's weights; 0 if NNI exports the best one."""

    settings: StrategySettings
    epochs: int = 10
    batch_size: int = 64

    def __post_init__(self) -> None:
        for option, value in (("epochs", self.epochs), ("batch_size", self.batch_size)):
            if value < 1:
                raise SlimsearchError(f"{self.NAME}: {option} {value} is less than 1")

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate what `search` asks for, train the supernet, and evaluate its best architectures.

        Raises:
            SlimsearchError: this strategy cannot search the space, or the supernet's training failed.
            KeyboardInterrupt: after the workers were stopped.
        """
        space = space_of(self.NAME, evaluator)
        if not (isinstance(space, NniSpace) and isinstance(evaluator, ImageEvaluator)):
            raise SlimsearchError(
                f"{self.NAME} trains a supernet, and {type(evaluator).__name__} has not what that needs: a `space` "
                "that is an NNI ModelSpace, and `data`"
            )
        from slimsearch.strategies._nni import supernet as _nni_supernet

        _nni_supernet.check(self.NAME, self.strategy(space), space, self.settings.seed)
        with (
            self._folder() as folder,
            Workers(
                self.settings.local_workers, self.settings.trial_timeout, _WithSupernet(self, evaluator)
            ) as workers,
        ):
            workers.evaluate(search)  # first, so that no latency is measured while the supernet is trained
            proposer = BestArchitectures(self.NAME, self._architectures(workers, folder), self.OFFERED)
            workers.evaluate(ProposerSearch(search, proposer, space))

    @abstractmethod
    def strategy(self, space: NniSpace) -> Any:
        """A new NNI strategy."""

    def best(self, supernet: OneShotSupernet) -> list[dict[str, Any]]:
        """The best architectures of a trained supernet, best first."""
        return supernet.ranked(self.RANKED) if self.RANKED else [supernet.export()]

    @property
    def training_settings(self) -> dict[str, Any]:
        """The settings of the supernet's training, as JSON."""
        return {"strategy": self.NAME, "seed": self.settings.seed, "epochs": self.epochs, "batch_size": self.batch_size}

    def _architectures(self, workers: Workers, folder: Path) -> list[Point]:
        stored = _read(folder)
        architectures = stored.pop("architectures", None)
        if architectures and stored == self.training_settings:
            return list(architectures)
        task = Task(SUPERNET_TASK, Candidate({}), self.epochs, self.settings.seed, folder)
        _log.info("%s: training the supernet for %d epochs", self.NAME, self.epochs)
        result = workers.train(task, f"{self.NAME}: supernet")
        if isinstance(result, Failure):
            where = f" (log: {folder / 'log.txt'})" if self.settings.run_directory is not None else ""
            raise SlimsearchError(f"{self.NAME}: the supernet could not be trained: {result.error}{where}")
        return list(_read(folder)["architectures"])

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        folder = supernet_folder(self.settings)
        if folder is None:
            with tempfile.TemporaryDirectory(prefix="slimsearch-") as temporary:
                yield Path(temporary)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            yield folder


@dataclass
class _WithSupernet:
    """The run's evaluator, which also trains the supernet."""

    strategy: OneShot
    evaluator: ImageEvaluator

    def evaluate(self, task: Task, *, report: ReportEpoch) -> Outcome:
        if task.number != SUPERNET_TASK:
            return self.evaluator.evaluate(task, report=report)
        from slimsearch.strategies._nni import supernet as _nni_supernet

        strategy = self.strategy
        supernet = _nni_supernet.train(
            strategy.strategy, self.evaluator.space, self.evaluator.data,
            epochs=task.fidelity, batch_size=strategy.batch_size, held_out=strategy.HELD_OUT, seed=task.seed,
            report=report,
        )  # fmt: skip
        found = {**strategy.training_settings, "architectures": strategy.best(supernet)}
        write_json(task.directory / _ARCHITECTURES, found)
        return Outcome({}, {"architectures": _ARCHITECTURES})


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = read_json(folder / _ARCHITECTURES)
    except SlimsearchError:  # missing or damaged
        return {}
    if mismatch(found, {"architectures": [dict], "strategy": str}) is not None:
        return {}
    return {**found, "strategy": found["strategy"].replace("-", "_")}  # version 0.1 wrote nni-darts and so on


class BestArchitectures:
    """Proposes architectures in order, until `wanted` of them have a result.

    Args:
        name: of the strategy.
        architectures: best first.
        wanted: number of results; failed and ruled-out architectures do not count.
    """

    def __init__(self, name: str, architectures: Sequence[Point], wanted: int) -> None:
        self.name = name
        self._architectures = iter(architectures)
        self._wanted = wanted
        self._running = 0

    def propose(self, key: str) -> Point | None:
        """See `Proposer`."""
        if self._running >= self._wanted > 0:
            return None
        point = next(self._architectures, None) if self._wanted > 0 else None
        if point is None:
            raise Exhausted
        self._running += 1
        return point

    def tell(self, key: str, losses: tuple[float, ...] | None, *, failed: bool = False) -> None:
        """See `Proposer`."""
        self._running -= 1
        self._wanted -= losses is not None

    def close(self) -> None:
        """See `Proposer`."""
