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
        blameless: the task need not be the cause: its machine or a process without its code was lost, or memory ran out
            while other tasks ran beside it.
        unwritable: the disk of the run directory is full or read-only: no task could succeed.
    """

    error: str
    worker_died: bool = False
    blameless: bool = False
    unwritable: bool = False


@dataclass(frozen=True)
class Recorded:
    """What the record has of a candidate.

    Attributes:
        metrics: empty where it failed.
        losses: the objectives, or the weighted product alone; less is better. None where it failed, was ruled out or
            was ended early.
    """

    metrics: Mapping[str, float]
    losses: tuple[float, ...] | None


@dataclass(frozen=True)
class Figures:
    """The state of a run.

    Attributes:
        states: number of trials in each state.
        best: best value of each objective among the complete, feasible trials.
        hypervolume: of their front, see `slimsearch.evaluators.hypervolume`; None where there is none.
    """

    states: Mapping[str, int]
    best: Mapping[str, float]
    hypervolume: float | None


class TaskSource(Protocol):
    """Where tasks come from and results go. It is called from one thread only."""

    def ask(self) -> Task | None:
        """The next task; None: nothing now, and nothing ever if nothing is running."""

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Progress of a running task; False: it is to stop."""

    def tell(self, number: int, result: Outcome | Failure) -> None:
        """The result of a task."""

    def figures(self) -> Figures:
        """The state of the run, for displays."""


class Search(TaskSource, Protocol):
    """A source of tasks that also takes candidates which the strategy proposes."""

    def offer(self, architecture: Point) -> Task | Recorded | None:
        """A candidate that the strategy proposes: its task, what is recorded of it, or None: the budget is spent.

        Raises:
            SlimsearchError: it is not in the space.
        """

    def close(self) -> None:
        """A strategy that proposes has nothing further to offer."""

    def recorded(self, number: int) -> Recorded | None:
        """What the record has of a trial; None: it has not ended, as one that is paused or is tried again."""


@dataclass(frozen=True)
class StrategySettings:
    """The options of a run that concern its strategy.

    Attributes:
        workers: trials at the same time, as the user asks for; None: the strategy decides.
        default_workers: worker processes that this machine has cores for.
        trial_timeout: seconds after which a trial is ended and counts as failed; None: never.
        seed: of the run.
        run_directory: absolute path of the run directory, which need not exist yet; None: there is none.
        sampler: the name in ``--sampler``.
        objectives: number of objectives that the sampler minimizes.
        ray_address: of a running Ray cluster; ``auto``: the one on this machine; None: start a local one.
        cpus_per_trial, gpus_per_trial: Ray resources of each trial; fractions are allowed.

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
    """What sets a strategy apart from one that evaluates the search's own candidates in local worker processes.

    Attributes:
        proposes: it proposes candidates itself (`Search.offer`), in place of the run's sampler.
        runs_sampler: what proposes is the searcher that ``--sampler`` names, run by the strategy.
        shares_weights: candidates are first scored with weights from one supernet; the best are then trained.
        needs_networks: it works on networks only, not on tables or functions.
        remote_workers: its workers are not processes of this machine's pool; unless ``--workers`` is given, it runs
            as many trials at a time as the cluster has room for.
    """

    proposes: bool = False
    runs_sampler: bool = False
    shares_weights: bool = False
    needs_networks: bool = False
    remote_workers: bool = False


class Strategy(Protocol):
    """An engine: owns the workers, and nothing else.

    A strategy is a class whose only argument is a `StrategySettings`. It may have an attribute ``traits``, a `Traits`.
    """

    def run(self, search: Search, evaluator: Evaluator) -> None:
        """Evaluate everything that `search` asks for.

        Raises:
            KeyboardInterrupt: after the workers were stopped; what was running is left to a resumed run.
        """


def load_strategy(name: str, settings: StrategySettings) -> Strategy:
    """The strategy called `name`: a built-in, ``path/to/file.py:Class`` or ``package.module:Class``.

    Raises:
        SlimsearchError: there is none, it is no strategy, or it refuses its settings.
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
    """What `strategy` declares; the default where it declares nothing.

    Raises:
        SlimsearchError: its ``traits`` are of another type.
    """
    traits = getattr(strategy, "traits", Traits())
    if not isinstance(traits, Traits):
        raise SlimsearchError(f"{type(strategy).__name__}.traits is no slimsearch.strategies.Traits: {traits!r}")
    return traits


def space_of(name: str, evaluator: Evaluator) -> Space:
    """The space of the networks that `evaluator` evaluates, for a strategy that proposes by itself.

    Raises:
        SlimsearchError: it does not say which.
    """
    space = getattr(evaluator, "space", None)
    if not isinstance(space, Space):
        raise SlimsearchError(f"{name} needs the space to search, and {type(evaluator).__name__} has no `space`")
    return space


def supernet_folder(settings: StrategySettings) -> Path | None:
    """Where the log of a supernet's training goes, and its result; None without a run directory."""
    return None if settings.run_directory is None else settings.run_directory / "supernet"
