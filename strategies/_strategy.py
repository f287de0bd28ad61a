"""The strategy interface: the search that a strategy drives, its settings, and what it declares about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Evaluator, Outcome, Task
from slimsearch.names import load_class
from slimsearch.search_spaces import Point, Space


@dataclass(frozen=True)
class Failure:
    """A task without an outcome.

    Attributes:
        error: one line, with the name of the exception.
        worker_died: the process was lost; the task may succeed in another one.
        blameless: the task is probably not the cause: its machine was lost, its process died before the task began, or
            memory ran out while other tasks ran.
        unwritable: the disk of the run directory is full or read-only, so every task would fail.
    """

    error: str
    worker_died: bool = False
    blameless: bool = False
    unwritable: bool = False


@dataclass(frozen=True)
class Recorded:
    """The recorded result of a candidate.

    Attributes:
        metrics: empty if it failed.
        losses: the objectives, or the weighted product alone; less is better. None if it failed, was ruled out or
            was stopped early, or has no result yet.
        running: number of its trial if it has no result yet: it is evaluated, paused or waits for a retry. None if it
            has ended.
    """

    metrics: Mapping[str, float]
    losses: tuple[float, ...] | None
    running: int | None = None


@dataclass(frozen=True)
class RunStatus:
    """The state of a run.

    Attributes:
        states: number of trials in each state.
        best: best value of each objective among the complete, feasible trials.
        hypervolume: of their front, see `slimsearch.evaluators.hypervolume`; None without such a trial.
    """

    states: Mapping[str, int]
    best: Mapping[str, float]
    hypervolume: float | None


class TaskSource(Protocol):
    """Gives tasks and takes their results; called from one thread only."""

    def ask(self) -> Task | None:
        """The next task; None if there is none now. None while nothing runs ends the search."""

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Record an epoch of a running task; returns whether the task continues."""

    def tell(self, number: int, result: Outcome | Failure) -> None:
        """Record the result of a task."""

    def status(self) -> RunStatus:
        """The state of the run, for displays."""


class Search(TaskSource, Protocol):
    """A task source that also accepts candidates from the strategy."""

    def offer(self, architecture: Point) -> Task | Recorded | None:
        """Propose a candidate; returns its task, its recorded result, or None if the budget is spent.

        A candidate that is proposed while it is evaluated has no result yet, see `Recorded.running`; `recorded` gives
        it later.

        Raises:
            SlimsearchError: it is not in the space.
        """

    def close(self) -> None:
        """Declare that the strategy makes no further proposals."""

    def recorded(self, number: int) -> Recorded | None:
        """The recorded result of a trial; None if it has not ended, for example while paused or before a retry."""


@dataclass(frozen=True)
class StrategySettings:
    """The options of a run that concern its strategy.

    Attributes:
        workers: number of concurrent trials that the user asks for; None if the strategy decides.
        default_workers: number of worker processes that this machine has cores for.
        trial_timeout: seconds after which a trial is stopped and counts as failed; None for no limit.
        seed: of the run.
        run_directory: absolute path of the run directory, which need not exist yet; None for no run directory.
        sampler: the name in ``--sampler``.
        objectives: number of objectives that the sampler minimizes.
        ray_address: of a running Ray cluster; ``auto`` for the one on this machine; None to start a local one.
        cpus_per_trial, gpus_per_trial: Ray resources of each trial; fractions are allowed.
        keep_dashboard: leave a local Ray cluster with its dashboard running at the end.

    Raises:
        SlimsearchError: a value is out of range; the message names the option.
    """

    workers: int | None = None
    default_workers: int = 2
    trial_timeout: float | None = None
    seed: int = 0
    run_directory: Path | None = None
    sampler: str = "random"
    objectives: int = 1
    ray_address: str | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    keep_dashboard: bool = False

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise SlimsearchError(f"--workers {self.workers} is less than 1")
        if self.trial_timeout is not None and self.trial_timeout <= 0:
            raise SlimsearchError(f"--trial-timeout {self.trial_timeout:g} is not above 0")

    @property
    def local_workers(self) -> int:
        """Number of worker processes on this machine."""
        return self.workers or self.default_workers


@dataclass(frozen=True)
class Traits:
    """Declared properties of a strategy. The defaults describe local workers that evaluate the sampler's candidates.

    Attributes:
        proposes: it proposes candidates itself (`Search.offer`) in place of the run's sampler.
        runs_sampler: its proposals come from the searcher that ``--sampler`` names.
        shares_weights: candidates are first scored with weights from one supernet; the best are then trained.
        needs_networks: it works on networks only, not on tables or functions.
        needs_nni: it works on spaces that are NNI `ModelSpace` classes only.
        remote_workers: its workers run on a cluster; unless ``--workers`` is given, it runs as many trials as the
            cluster has room for.
    """

    proposes: bool = False
    runs_sampler: bool = False
    shares_weights: bool = False
    needs_networks: bool = False
    needs_nni: bool = False
    remote_workers: bool = False


class Strategy(Protocol):
    """Runs the tasks of a search in its workers.

    A strategy is a class whose only argument is a `StrategySettings`. It may have an attribute ``traits``, a `Traits`.
    """

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate everything that `search` asks for.

        Raises:
            KeyboardInterrupt: after the workers were stopped; a resumed run repeats the running trials.
        """


def load_strategy(name: str, settings: StrategySettings) -> Strategy:
    """The strategy called `name`: a built-in, ``path/to/file.py:Class`` or ``package.module:Class``.

    Raises:
        SlimsearchError: it does not exist, is not a strategy, or rejects its settings.
    """
    strategy_class = load_class("strategy", name, "slimsearch.strategies")
    if not callable(getattr(strategy_class, "run", None)):
        raise SlimsearchError(f"strategy '{name}' has no method run(search, evaluator)")
    try:
        strategy: Strategy = strategy_class(settings)
    except SlimsearchError:
        raise
    except Exception as error:  # a user's class may raise anything
        raise SlimsearchError(f"strategy '{name}' cannot be constructed: {type(error).__name__}: {error}") from error
    return strategy


def traits_of(strategy: Strategy) -> Traits:
    """The declared traits of `strategy`, or the defaults.

    Raises:
        SlimsearchError: its ``traits`` are of another type.
    """
    traits = getattr(strategy, "traits", Traits())
    if not isinstance(traits, Traits):
        raise SlimsearchError(f"{type(strategy).__name__}.traits is not a slimsearch.strategies.Traits: {traits!r}")
    return traits


def space_of(name: str, evaluator: Evaluator) -> Space:
    """The space of `evaluator`, for a strategy that proposes candidates.

    Raises:
        SlimsearchError: the evaluator has no space.
    """
    space = getattr(evaluator, "space", None)
    if not isinstance(space, Space):
        raise SlimsearchError(f"{name} needs the space to search, and {type(evaluator).__name__} has no `space`")
    return space


SUPERNET_TASK = -1
"""Number of the task that trains a supernet, which is not a trial."""


def supernet_folder(settings: StrategySettings) -> Path | None:
    """Folder of a supernet's training log and result; None without a run directory."""
    return None if settings.run_directory is None else settings.run_directory / "supernet"
