"""The setup of a run: constructs and checks its components before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimsearch import compression
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import IMPORTS, Board, Objective
from slimsearch.evaluators.tasks import Classification
from slimsearch.loop.learning_data import learning_task, with_task
from slimsearch.loop.own_training import with_own_training
from slimsearch.loop.problem import Problem, check_without_data, prepare, recorded_metrics
from slimsearch.loop.python_objects import OWN_TRAINING, PythonObjects
from slimsearch.loop.stopping import Stopping
from slimsearch.options.check_names import check_names
from slimsearch.options.chosen import architectures
from slimsearch.options.configuration import FROM_PYTHON, Configuration, ModelKind
from slimsearch.options.recipe_choices import for_runtime, text_of
from slimsearch.record.ranking import Ranking
from slimsearch.search_spaces import JointSpace, ModelSpace, NniSpace, RecipeSpace
from slimsearch.source import fingerprints, object_fingerprints
from slimsearch.strategies import Strategy, StrategySettings, Traits, begin_workers, load_strategy, traits_of
from slimsearch.strategies.samplers import Sampler, load_sampler
from slimsearch.strategies.schedulers import Exploiting, Scheduler, compares_groups, load_scheduler


@dataclass(frozen=True)
class Setup:
    """The components of a run.

    Attributes:
        configuration: the options, with the content of the files that they name.
        ranking: of the trials.
        recipe: of the compression after the search.
        problem: the space and its evaluator.
        sampler: proposes candidates.
        scheduler: decides how far candidates are trained; None: all are fully trained.
        stopping: ends the search early.
        strategy, traits: the engine and its properties.
        environment: the content of environment.json.
    """

    configuration: Configuration
    ranking: Ranking
    recipe: compression.Recipe
    problem: Problem
    sampler: Sampler
    scheduler: Scheduler | None
    stopping: Stopping
    strategy: Strategy
    traits: Traits
    environment: dict[str, Any]

    @property
    def recipes(self) -> RecipeSpace | None:
        """The space of recipes, if recipes are searched together with architectures."""
        return self.problem.space.recipes if isinstance(self.problem.space, JointSpace) else None


def set_up(
    configuration: Configuration, objects: PythonObjects, run_directory: Path, boards: tuple[Board, ...]
) -> Setup:
    """Construct and check all components, the cheap ones first; all paths are absolute.

    Args:
        configuration: the options, without secrets.
        objects: passed from Python.
        run_directory: of the run.
        boards: that measure latency.

    Raises:
        SlimsearchError: an option is invalid, or two options exclude each other.
    """
    check_names(configuration)
    scheduler = None if configuration.scheduler == "none" else load_scheduler(configuration.scheduler)
    chosen = None if configuration.architectures is None else architectures(configuration.architectures)
    configuration = for_runtime(configuration)
    trains_networks = objects.evaluate is None and configuration.evaluator == "network"
    strategy = load_strategy(configuration.strategy, _strategy_settings(configuration, run_directory))
    traits = traits_of(strategy)
    if trains_networks:
        if not traits.remote_workers:
            begin_workers(IMPORTS)  # while this process imports the same modules
        check_without_data(configuration)
    sampler = load_sampler("random" if traits.runs_sampler else configuration.sampler)
    _check_combinations(_Combination(configuration, traits, scheduler, trains_networks))
    configuration, objects = with_own_training(configuration, objects)  # may read the data set
    configuration = with_task(configuration, objects)
    ranking = Ranking.of(configuration)
    recipe = _recipe(configuration)
    stopping = Stopping.of(ranking, configuration.stop_at, configuration.patience)
    if trains_networks:
        _check_objectives(ranking, recorded_metrics(configuration, learning_task(configuration, objects)), own=True)
    problem = prepare(configuration, objects, chosen, run_directory, boards)
    resolved = _with_content(problem.configuration or configuration, chosen, recipe, problem)
    setup = Setup(
        resolved, ranking, recipe, problem, sampler, scheduler, stopping, strategy, traits,
        problem.environment(resolved) | {"code": _code(resolved, objects, recipe, problem)},
    )  # fmt: skip
    _check_combinations(_Combination(resolved, traits, scheduler, trains_networks, problem, ranking.leading))
    if problem.metrics is not None and not trains_networks:
        _check_objectives(ranking, problem.metrics, own=False)
    return setup


def _recipe(configuration: Configuration) -> compression.Recipe:
    """The recipe of the compression after the search; empty with ``--co-search``."""
    recipe = compression.Recipe.parse(configuration.compress)
    if configuration.co_search is not None:
        return compression.Recipe()
    recipe.check()
    if configuration.int8_target != "any":
        recipe = recipe.with_option("target", configuration.int8_target)
    return recipe


def _strategy_settings(configuration: Configuration, run_directory: Path) -> StrategySettings:
    # The task may replace the leading one of the objectives, and not their number.
    ranking = Ranking.of(configuration.replace(weights=None, targets=None))
    return StrategySettings(
        workers=configuration.workers or None, default_workers=configuration.worker_count,
        trial_timeout=configuration.trial_timeout, seed=configuration.seed, run_directory=run_directory,
        sampler=configuration.sampler, objectives=len(ranking.sampler_objectives()),
        ray_address=configuration.ray_address, keep_dashboard=configuration.keep_dashboard,
        cpus_per_trial=configuration.cpus_per_trial,
        gpus_per_trial=configuration.gpus_per_trial,
    )  # fmt: skip


def _with_content(
    configuration: Configuration, chosen: Sequence[Mapping[str, Any]] | None, recipe: compression.Recipe,
    problem: Problem,
) -> Configuration:  # fmt: skip
    """The options with the content of files, which may have changed when the run is resumed."""
    co_search = configuration.co_search
    if co_search is not None and isinstance(problem.space, JointSpace):
        co_search = text_of(problem.space.recipes)
    return configuration.replace(
        architectures=None if chosen is None else json.dumps(chosen),
        compress=recipe.text(),
        co_search=co_search,
    )


def _code(
    configuration: Configuration, objects: PythonObjects, recipe: compression.Recipe, problem: Problem
) -> dict[str, str]:
    """Fingerprints of the user's code that recorded metrics depend on: space, evaluation, metrics and stages."""
    recipes = problem.space.recipes.content if isinstance(problem.space, JointSpace) else {}
    metrics = [entry.partition("=")[2].strip() for entry in (configuration.metrics or "").split(",")]
    subjects = [configuration.space, _own_model(configuration), configuration.evaluator, configuration.task]
    subjects += [getattr(configuration, name) or "" for name in OWN_TRAINING]
    names = [*subjects, *metrics, *configuration.augment.split("+"), *_texts(recipe.to_dict()), *_texts(recipes)]
    locations = dict.fromkeys(name.rpartition(":")[0] for name in names if ":" in name)
    found = fingerprints(location for location in locations if not location.startswith(FROM_PYTHON))
    network = None if objects.network is None else type(objects.network.module)
    task = None if objects.task is None else type(objects.task)
    functions = (getattr(objects, name) for name in OWN_TRAINING)
    for given in (objects.space, objects.evaluate, objects.build, network, task, *functions):
        if given is not None and not isinstance(given, Mapping):
            found |= object_fingerprints(given)
    return found


def _own_model(configuration: Configuration) -> str:
    """The given network, if it is code of the user's."""
    name = configuration.model or ""
    return name if ModelKind.of(name) is ModelKind.CODE else ""


def _texts(value: Any) -> Iterator[str]:
    """All texts in plain values, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inside in value.items():
            yield from (*_texts(name), *_texts(inside))
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from _texts(inside)


@dataclass(frozen=True)
class _Combination:
    """What the rules about options are about, before and after the data are read.

    Attributes:
        configuration, traits, scheduler: see `Setup`.
        trains_networks: whether candidates are networks that are trained.
        problem, leading: the problem and the leading objective; None before the data are read.
    """

    configuration: Configuration
    traits: Traits
    scheduler: Scheduler | None
    trains_networks: bool
    problem: Problem | None = None
    leading: Objective | None = None

    @property
    def networks(self) -> ModelSpace | None:
        """The space of networks, as far as it is known."""
        return None if self.problem is None else self.problem.networks

    @property
    def searches_recipes(self) -> bool:
        """Whether recipes or hyper-parameters are searched, by the options or by the space."""
        options = self.configuration
        joint = self.problem is not None and isinstance(self.problem.space, JointSpace)
        return joint or (self.trains_networks and (options.co_search is not None or options.search_hyperparameters))

    @property
    def trained_by_the_user(self) -> bool:
        """Whether a function of the user's trains the networks."""
        return self.configuration.fit is not None or self.configuration.lightning is not None

    @property
    def needs_classifiers(self) -> bool:
        """Whether the strategy trains a supernet, which classifies."""
        return self.traits.needs_nni or self.traits.shares_weights


@dataclass(frozen=True)
class _Rule:
    """A rule about options that exclude each other.

    Attributes:
        broken: whether a combination violates the rule, as far as it is known.
        message: a format string over the options, `joint_option`, the flag that adds recipes to the search,
            `space_name`, and `leading`, the leading metric.
    """

    broken: Callable[[_Combination], bool]
    message: str


_ALONE = "searches architectures alone; without it, {joint_option} works"
_RULES = (
    _Rule(
        lambda s: (
            s.configuration.min_accuracy is not None and s.leading is not None and s.leading.direction == "minimize"
        ),
        "--min-accuracy is for a metric that is maximized, and {leading} is minimized: leave it out",
    ),
    _Rule(
        lambda s: not s.trains_networks and s.traits.needs_networks,
        "--strategy {strategy} trains networks, and --evaluator has none",
    ),
    _Rule(
        lambda s: s.traits.needs_nni and s.networks is not None and not isinstance(s.networks, NniSpace),
        "--strategy {strategy} trains a supernet of an NNI ModelSpace, and {space_name} is plain PyTorch: search it by "
        "--strategy optuna, ray, nni_evolution, nni_grid, nni_random or nni_tpe",
    ),
    _Rule(
        lambda s: s.trained_by_the_user and s.needs_classifiers,
        "--strategy {strategy} trains a supernet by itself; with fit or lightning: optuna, ray, nni_evolution, "
        "nni_grid, nni_random and nni_tpe",
    ),
    _Rule(
        lambda s: (
            s.needs_classifiers
            and s.problem is not None
            and s.problem.data is not None
            and not isinstance(s.problem.data.task, Classification)
        ),
        "--strategy {strategy} trains a supernet of classifiers; --task {task} works with optuna, ray, nni_evolution, "
        "nni_grid, nni_random and nni_tpe",
    ),
    _Rule(
        lambda s: s.trained_by_the_user and s.configuration.search_hyperparameters,
        "--search-hyperparameters varies Slimsearch's own training; let define(trial) suggest a learning_rate, which "
        "fit gets as an argument",
    ),
    _Rule(
        lambda s: s.configuration.storage is not None and s.traits.runs_sampler,
        "--sampler {sampler} keeps what it knows in one process; with --storage: built-in samplers, and Optuna's",
    ),
    _Rule(
        lambda s: s.configuration.storage is not None and (s.traits.shares_weights or s.traits.proposes),
        "--strategy {strategy} keeps what it knows in one process; with --storage: optuna, ray",
    ),
    _Rule(
        lambda s: s.configuration.init is not None and s.traits.shares_weights,
        "--init has no effect with --strategy {strategy}: its networks inherit the weights of a supernet",
    ),
    _Rule(
        lambda s: s.configuration.init is not None and not s.trains_networks,
        "--init: there are no networks with --evaluator {evaluator}",
    ),
    _Rule(
        lambda s: (
            isinstance(s.scheduler, Exploiting)
            and s.problem is not None
            and not (isinstance(s.problem.space, JointSpace) and s.problem.space.recipes.training)
        ),
        "--scheduler {scheduler} varies training hyper-parameters: it needs --search-hyperparameters",
    ),
    _Rule(
        lambda s: isinstance(s.scheduler, Exploiting) and s.configuration.storage is not None,
        "--scheduler {scheduler} has one driver: it does not go with --storage",
    ),
    _Rule(
        lambda s: s.searches_recipes and (s.traits.shares_weights or (s.traits.proposes and not s.traits.runs_sampler)),
        f"--strategy {{strategy}} {_ALONE}",
    ),
    _Rule(lambda s: s.searches_recipes and s.traits.runs_sampler, f"--sampler {{sampler}} {_ALONE}"),
    _Rule(
        lambda s: s.configuration.co_search is not None and s.scheduler is not None and compares_groups(s.scheduler),
        "--scheduler {scheduler} compares groups of trials that all train a network, and with --co-search some need no "
        "training: use asha, median or dominated",
    ),
    _Rule(
        lambda s: s.configuration.model is not None and (s.traits.shares_weights or s.traits.proposes),
        "--strategy {strategy} searches architectures, and a given network has none to search; optuna and ray do",
    ),
    _Rule(
        lambda s: s.configuration.model is not None and s.scheduler is not None,
        "--scheduler {scheduler} shortens the training of networks, and a given network is trained",
    ),
    _Rule(
        lambda s: s.configuration.architectures is not None and not s.trains_networks,
        "--architectures are networks of --space, and --evaluator has none",
    ),
)


def _check_combinations(combination: _Combination) -> None:
    configuration, networks = combination.configuration, combination.networks
    joint_option = configuration.flag("search_hyperparameters" if configuration.co_search is None else "co_search")
    if networks is not None and networks.training:
        joint_option = f"the space with its {' and '.join(networks.training)}"
    words = {
        **vars(configuration),
        "joint_option": joint_option,
        "space_name": "" if networks is None else networks.name,
        "leading": "" if combination.leading is None else combination.leading.metric,
    }
    for rule in _RULES:
        if rule.broken(combination):
            raise SlimsearchError(rule.message.format(**words))


def _check_objectives(ranking: Ranking, recorded: Sequence[str], *, own: bool) -> None:
    for objective in ranking.objectives:
        if objective.metric not in recorded:
            hint = ", or your own by --metrics name=path/to/file.py:function" if own else ""
            raise SlimsearchError(f"objective '{objective.metric}' is not recorded; known: {', '.join(recorded)}{hint}")
