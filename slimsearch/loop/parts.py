"""Everything that a run is made of and that can be wrong, made and checked before anything is written."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimsearch import compression
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import IMPORTS
from slimsearch.loop.problem import Problem, prepare
from slimsearch.loop.stopping import Stopping
from slimsearch.names import load_class
from slimsearch.options.chosen import architectures
from slimsearch.options.configuration import Configuration
from slimsearch.options.recipe_choices import refuse_what_does_not_go_together, text_of
from slimsearch.record.ranking import Ranking
from slimsearch.search_spaces import JointSpace
from slimsearch.strategies import Strategy, begin_workers
from slimsearch.strategies.samplers import Sampler, load_sampler
from slimsearch.strategies.schedulers import Exploiting, Scheduler, load_scheduler

Evaluate = Callable[..., Mapping[str, float]]


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Attributes:
        configuration: with what it names resolved.
        ranking: what is better.
        recipe: of the compression after the search.
        sampler, scheduler, stopping: what is tried, how far it is trained, and when enough is found.
        strategy: makes the engine, for a run directory.
        proposing: whether the sampler proposes, and not the strategy itself.
        inheriting: whether candidates are first judged with weights of a supernet.
        problem: what is searched and what evaluates it.
        environment: for environment.json.
    """

    configuration: Configuration
    ranking: Ranking
    recipe: compression.Recipe
    sampler: Sampler
    scheduler: Scheduler | None
    stopping: Stopping
    strategy: Callable[[Path], Strategy]
    proposing: bool
    inheriting: bool
    problem: Problem
    environment: dict[str, Any]


def make_parts(configuration: Configuration, space: Any, data: Any, evaluate: Evaluate | None) -> Parts:
    """Make and check every part, the cheap ones first.

    Args:
        configuration: the options.
        space, data, evaluate: see `slimsearch.loop.job.start`.

    Raises:
        SlimsearchError: something is wrong, or does not go together.
    """
    ranking = Ranking.of(configuration)
    recipe = compression.parse(configuration.compress)
    if configuration.int8_target != "any":
        recipe = compression.with_option(recipe, "target", configuration.int8_target)
    recipe = compression.parse(compression.text_of(recipe))  # files by their whole paths, as a resumed run reads them
    scheduler = None if configuration.scheduler == "none" else load_scheduler(configuration.scheduler)
    stopping = Stopping.of(ranking, configuration.stop_at, configuration.patience)
    strategy_class = load_class("strategy", configuration.strategy, "slimsearch.strategies")
    strategy = _strategy_maker(strategy_class, configuration, len(ranking.sampler_objectives()))
    made = strategy(Path())  # refuses what it is told wrong
    proposing = not getattr(made, "PROPOSES", False)
    # What a strategy proposes with itself need not be a sampler of ours.
    sampler = load_sampler(configuration.sampler if proposing or not hasattr(made, "sampler") else "random")
    inheriting = getattr(strategy_class, "INHERITS", False)
    if evaluate is None and configuration.evaluator == "network" and not getattr(strategy_class, "FILLS", False):
        begin_workers(IMPORTS)  # while this process imports the same
    if configuration.architectures is not None:  # read once: what the file holds, not its name
        configuration = configuration.replace(architectures=json.dumps(architectures(configuration.architectures)))
    problem = prepare(configuration, space, data, evaluate)
    if problem.data is None and getattr(strategy_class, "NEEDS_NETWORKS", False):
        raise SlimsearchError(f"--strategy {configuration.strategy} trains networks, and --evaluator has none")
    if configuration.storage is not None and (inheriting or not proposing):
        what, others = f"--strategy {configuration.strategy}", "optuna, ray"
        if hasattr(made, "sampler"):
            what, others = f"--sampler {configuration.sampler}", "built-in samplers, and Optuna's"
        raise SlimsearchError(f"{what} keeps what it knows in one process; with --storage: {others}")
    if configuration.init is not None and (inheriting or problem.data is None):
        what = f"--strategy {configuration.strategy}" if inheriting else "--evaluator"
        raise SlimsearchError(f"--init: networks of {what} begin with other weights, or there are none")
    if isinstance(scheduler, Exploiting):
        if not isinstance(problem.space, JointSpace) or not problem.space.recipes.training:
            raise SlimsearchError(
                f"--scheduler {configuration.scheduler} varies training hyper-parameters: it needs "
                "--search-hyperparameters"
            )
        if configuration.storage is not None:
            raise SlimsearchError(
                f"--scheduler {configuration.scheduler} has one driver: it does not go with --storage"
            )
    if isinstance(problem.space, JointSpace):
        refuse_what_does_not_go_together(
            configuration,
            {
                f"--strategy {configuration.strategy}": inheriting or (not proposing and not hasattr(made, "sampler")),
                f"--sampler {configuration.sampler}": not proposing and hasattr(made, "sampler"),
                f"--scheduler {configuration.scheduler}": scheduler is not None and configuration.co_search is not None,
            },
        )
        if configuration.co_search is not None:
            recipe = {}
            configuration = configuration.replace(co_search=text_of(problem.space.recipes))
    recorded = problem.metrics
    for objective in ranking.objectives:
        if recorded is not None and objective.metric not in recorded:
            own = ", or your own by --metrics name=path/to/file.py:function" if problem.data is not None else ""
            raise SlimsearchError(f"objective '{objective.metric}' is not recorded; known: {', '.join(recorded)}{own}")
    if configuration.architectures is not None and problem.data is None:
        raise SlimsearchError("--architectures are networks of --space, and --evaluator has none")
    # The recipe itself, not the name of a file that may change or be elsewhere when the run is resumed.
    configuration = configuration.replace(compress=compression.text_of(recipe))
    return Parts(
        configuration, ranking, recipe, sampler, scheduler, stopping, strategy, proposing, inheriting, problem,
        problem.environment(configuration),
    )  # fmt: skip


def _strategy_maker(
    strategy_class: type[Any], configuration: Configuration, objectives: int
) -> Callable[[Path], Strategy]:
    """Makes the strategy for a run directory; what it does not take as an argument it is not told."""
    known = inspect.signature(strategy_class).parameters
    filling = getattr(strategy_class, "FILLS", False)
    options = {
        "workers": configuration.workers if filling else configuration.worker_count,
        "trial_timeout": configuration.trial_timeout, "seed": configuration.seed,
        "ray_address": configuration.ray_address, "cpus_per_trial": configuration.cpus_per_trial,
        "gpus_per_trial": configuration.gpus_per_trial, "sampler": configuration.sampler, "objectives": objectives,
    }  # fmt: skip

    def make(directory: Path) -> Strategy:
        offered = {**options, "directory": directory / "supernet", "run_directory": directory}
        return strategy_class(**{k: v for k, v in offered.items() if k in known})  # type: ignore[no-any-return]

    return make
