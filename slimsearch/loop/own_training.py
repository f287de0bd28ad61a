"""A user's own training: its functions, the metrics that they give, and the compression stages that work with it."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from slimsearch import compression
from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import FunctionTraining, Objective, TrainingSettings, outputs_of
from slimsearch.evaluators.datasets import Dataset, Split, is_unlabelled, read_inputs
from slimsearch.evaluators.tasks import NeedsLoss, OwnScore
from slimsearch.evaluators.training.lightning_training import LightningFit, LightningScore
from slimsearch.loop.problem import given_network, networks
from slimsearch.loop.python_objects import OWN_TRAINING, PythonObjects
from slimsearch.names import load_function
from slimsearch.options.configuration import Configuration
from slimsearch.options.recipe_choices import each_value, read_choices, recipe_choices
from slimsearch.search_spaces import RecipeSpace

_COMPRESS = "prune,quantize"
"""Stages after the search, in place of the default ones, of which a distillation needs a loss."""


def with_own_training(configuration: Configuration, objects: PythonObjects) -> tuple[Configuration, PythonObjects]:
    """The options and objects of a run whose networks a user's function trains; others are returned as they are.

    The function ``fit`` trains a network, see `slimsearch.evaluators.training.function_training.Fit`, and ``score``
    scores a network or a file, see `OwnScore`; or ``lightning`` does both, see `LightningFit`. The first network of the
    space, which is not trained, is scored, so that metrics and mistakes are known before anything is trained.

    Returns:
        options without default stages that need Slimsearch's loss, and objects with the function that trains and the
        data set, whose task is the score function if there is one.

    Raises:
        SlimsearchError: a function is missing, fails or returns something else, or a stage needs Slimsearch's loss.
    """
    if objects.data is None and configuration.dataset.lower().endswith(".npy"):
        objects = replace(objects, data=read_inputs(Path(configuration.dataset)))
    fit, score, lightning = (_function(name, configuration, objects) for name in OWN_TRAINING)
    if fit is None and lightning is None:
        if score is not None:
            raise SlimsearchError("score is for networks that a function of yours trains: give fit too; else --metrics")
        if is_unlabelled(objects.data):
            raise SlimsearchError(
                "these are inputs without targets: give fit and score, functions that train and score a network, or "
                "targets: (inputs, targets)"
            )
        return configuration, objects
    if fit is not None and lightning is not None:
        raise SlimsearchError("fit and lightning both train networks: leave out one of them")
    if objects.evaluate is not None or configuration.evaluator != "network":
        raise SlimsearchError("fit trains networks, and --evaluator has none: leave out one of them")
    configuration = _without_default_losses(configuration)
    data, network = _first(configuration, objects)
    if lightning is not None:
        fit = LightningFit(lightning)
        score = score or LightningScore(lightning, _directions(configuration))
    if score is not None:
        data = _scored(data, network, score)
    elif not data.task.metrics:
        raise SlimsearchError("fit is given and score is not, which inputs without targets need: score(predict)")
    _check_stages(configuration, data, network)
    return configuration, replace(objects, data=data, fit=fit)


def _function(name: str, configuration: Configuration, objects: PythonObjects) -> Callable[..., Any] | None:
    found, location = getattr(objects, name), getattr(configuration, name)
    if found is None and location is not None:
        found = load_function(name, location)
    if found is not None and not callable(found):
        raise SlimsearchError(f"{name} is a {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def _without_default_losses(configuration: Configuration) -> Configuration:
    default = {option.name: option.default for option in dataclasses.fields(Configuration)}["compress"]
    if configuration.compress == default:
        configuration = configuration.replace(compress=_COMPRESS)
    if configuration.co_search in RecipeSpace.shipped():
        content = {stage: dict(own) for stage, own in read_choices(configuration).content.items()}
        content.pop("distill", None)
        content.get("prune", {}).pop("importance", None)
        configuration = configuration.replace(co_search=json.dumps(content))
    return configuration


def _first(configuration: Configuration, objects: PythonObjects) -> tuple[Dataset, Network]:
    """The data set, and the given network or the first one of the space."""
    if configuration.model is not None:
        given = given_network(configuration.replace(elastic=False), objects)
        return given.data, Network(given.space.build({}).eval())
    space, data = networks(configuration, objects)
    return data, Network(space.build(next(space.grid())).eval())


def _directions(configuration: Configuration) -> dict[str, str]:
    """Directions of the metrics of the validation split among the objectives, by name."""
    texts = [text for text in configuration.objectives.split(",") if text.strip()]
    objectives = [Objective.parse(text) for text in texts]
    return {one.metric: one.direction for one in objectives if one.metric.startswith("val")}


def _scored(data: Dataset, network: Network, score: Callable[..., Any]) -> Dataset:
    """The data set with the score function as its task; with a test split only if the function knows of splits."""
    try:
        knows_splits = "split" in inspect.signature(score).parameters
    except (TypeError, ValueError):  # a function without a signature, written in C
        knows_splits = False
    test = data.test
    if knows_splits and test is None:
        test = Split(data.train.inputs[:0], data.train.targets[:0])
    data = replace(data, test=test if knows_splits else None)
    return replace(data, task=OwnScore.of(score, outputs_of(network), data))


def _check_stages(configuration: Configuration, data: Dataset, network: Network) -> None:
    """Apply each stage that the options name to the untrained network, without training.

    Raises:
        SlimsearchError: a stage needs Slimsearch's loss.
    """
    training = FunctionTraining(
        lambda model: None, data, TrainingSettings(), seed=0, teachers={"parent": network, "best": network},
        initial=network.copy_module, latency=lambda network: 0.0,
    )  # fmt: skip
    for group in _groups(configuration, data):
        try:
            group.apply(network, training)
        except NeedsLoss as error:
            name = "+".join(stage.name for stage in group.stages)
            raise SlimsearchError(
                f"stage '{name}' {dict(group.stages[0].options) or ''} needs the loss of Slimsearch's own training: "
                f"{error}; leave it out"
            ) from error
        except Exception:  # such as of a stage that needs trained weights; it is reported when it is applied
            continue


def _groups(configuration: Configuration, data: Dataset) -> Iterator[compression.StageGroup]:
    """The groups of stages of all recipes; of those that differ in numbers, the first."""
    if configuration.co_search is None:
        recipes = [compression.Recipe.parse(configuration.compress)]
    else:
        space = recipe_choices(configuration, data)
        plain = [] if space is None else [candidate.recipe for candidate in each_value(space)]
        recipes = [compression.Recipe.from_dict(one) for one in plain]
    seen = set()
    for recipe in recipes:
        for group in recipe.groups:
            words = [(one.key, *((k, v) for k, v in one.options.items() if isinstance(v, str))) for one in group.stages]
            if str(words) not in seen:
                seen.add(str(words))
                yield group
