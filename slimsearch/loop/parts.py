"""Everything that a run is made of and that can be wrong, made and checked before anything is written."""

from __future__ import annotations

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
from slimsearch.options.chosen import architectures
from slimsearch.options.configuration import Configuration
from slimsearch.options.recipe_choices import refuse_what_does_not_go_together, text_of
from slimsearch.record.ranking import Ranking
from slimsearch.search_spaces import JointSpace
from slimsearch.strategies import Strategy, StrategySettings, begin_workers, load_strategy, traits_of
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
        strategy: the engine.
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
    strategy: Strategy
    proposing: bool
    inheriting: bool
    problem: Problem
    environment: dict[str, Any]


def make_parts(
    configuration: Configuration, space: Any, data: Any, evaluate: Evaluate | None, run_directory: Path
) -> Parts:
    """Make and check every part, the cheap ones first.

    Args:
        configuration: the options.
        space, data, evaluate: see `slimsearch.loop.job.start`.
        run_directory: absolute path; need not exist yet.

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
    strategy = load_strategy(
        configuration.strategy, _strategy_settings(configuration, len(ranking.sampler_objectives()), run_directory)
    )
    traits = traits_of(strategy)
    proposing, inheriting = not traits.proposes, traits.shares_weights
    sampler = load_sampler("random" if traits.runs_sampler else configuration.sampler)
    if evaluate is None and configuration.evaluator == "network" and not traits.remote_workers:
        begin_workers(IMPORTS)  # while this process imports the same
    if configuration.architectures is not None:  # read once: what the file holds, not its name
        configuration = configuration.replace(architectures=json.dumps(architectures(configuration.architectures)))
    problem = prepare(configuration, space, data, evaluate)
    if problem.data is None and traits.needs_networks:
        raise SlimsearchError(f"--strategy {configuration.strategy} trains networks, and --evaluator has none")
    if configuration.storage is not None and (inheriting or not proposing):
        what, others = f"--strategy {configuration.strategy}", "optuna, ray"
        if traits.runs_sampler:
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
                f"--strategy {configuration.strategy}": inheriting or (traits.proposes and not traits.runs_sampler),
                f"--sampler {configuration.sampler}": traits.runs_sampler,
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


def _strategy_settings(configuration: Configuration, objectives: int, run_directory: Path) -> StrategySettings:
    return StrategySettings(
        workers=configuration.workers or None, default_workers=configuration.worker_count,
        trial_timeout=configuration.trial_timeout, seed=configuration.seed, run_directory=run_directory,
        sampler=configuration.sampler, objectives=objectives, ray_address=configuration.ray_address,
        cpus_per_trial=configuration.cpus_per_trial, gpus_per_trial=configuration.gpus_per_trial,
    )  # fmt: skip
