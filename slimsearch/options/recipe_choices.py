"""The recipe space of ``--co-search`` and ``--search-hyperparameters``, with checks of its stages and values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slimsearch import compression
from slimsearch.errors import SlimsearchError, did_you_mean
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.training.augmentation import NAMED, Augmentation
from slimsearch.evaluators.training.network_training import LEARNING_RATE
from slimsearch.options.configuration import Configuration
from slimsearch.runtimes import SUFFIXES
from slimsearch.search_spaces import HYPERPARAMETERS, TRAINING, Candidate, RecipeSpace

_SEARCHED = {"none": ["none"], "shift": ["none", "shift"], "shift-flip": ["none", "shift", "shift-flip"]}


def recipe_choices(
    configuration: Configuration, data: Dataset, own: Mapping[str, Sequence[Any]] | None = None
) -> RecipeSpace | None:
    """The space of recipes that is searched besides the architecture, or None.

    Args:
        configuration: the options.
        data: the data set.
        own: training hyper-parameters of the space of architectures, with their values, which take precedence.

    Raises:
        SlimsearchError: the file cannot be read, or has an unknown stage, option or value.
    """
    if configuration.co_search is None and not configuration.search_hyperparameters and not own:
        return None
    content = dict(read_choices(configuration).content) if configuration.co_search is not None else {}
    if configuration.search_hyperparameters and TRAINING not in content:
        rate = configuration.learning_rate or LEARNING_RATE
        content = {
            TRAINING: {
                "learning_rate": [rate / 2.5, rate, rate * 2],
                "augmentation": _SEARCHED[data.augmentation],
                "warm_up": [0.1, 0.25, 0.4],
            },
            **content,
        }
    source = _source(configuration)
    if own:
        content = {TRAINING: {}, **content}
        content[TRAINING] = {**content[TRAINING], **own}
        source = f"{source} with the training of the space" if len(content) > 1 else "the training of the space"
    space = RecipeSpace(content, source)
    if not space.choices:
        raise SlimsearchError(f"{source} leaves nothing to choose")
    _check(space, configuration)
    for augmentation in {one.training["augmentation"] for one in each_value(space) if "augmentation" in one.training}:
        Augmentation(augmentation, data)  # checks that it is for such data
    return space


def check_choices(configuration: Configuration) -> None:
    """Check the choices of ``--co-search`` as far as they do not depend on the data set.

    Raises:
        SlimsearchError: the file cannot be read, or has an unknown stage, option or value.
    """
    if configuration.co_search is not None:
        _check(read_choices(configuration), configuration)


def for_runtime(configuration: Configuration) -> Configuration:
    """The options with the default stages and the part of a shipped recipe space that the runtime's files can have.

    Raises:
        SlimsearchError: they cannot have a stage or an option that was asked for.
    """
    runtime, co_search = configuration.runtime, configuration.co_search
    if runtime not in SUFFIXES:
        return configuration
    default = str(Configuration.__dataclass_fields__["compress"].default)
    if configuration.compress == default:
        stages = [stage for stage in default.split(",") if not _unsupported({stage: {}}, runtime)]
        configuration = configuration.replace(compress=",".join(stages))
    if co_search in RecipeSpace.shipped():
        content = {
            stage: {name: values for name, values in own.items() if name not in compression.LAYER_OPTIONS}
            for stage, own in read_choices(configuration).content.items()
            if not _unsupported({stage: {}}, runtime)
        }
        if not content:
            raise SlimsearchError(
                f"{configuration.flag('co_search')} {co_search} varies number formats, and --runtime {runtime} has one"
            )
        configuration = configuration.replace(co_search=json.dumps(content))
    if configuration.co_search is None:
        recipes: Iterable[compression.PlainRecipe] = [compression.Recipe.parse(configuration.compress).to_dict()]
    else:
        recipes = (candidate.recipe for candidate in each_value(read_choices(configuration)))
    for recipe in recipes:
        if reason := _unsupported(recipe, runtime):
            raise SlimsearchError(f"--runtime {runtime} cannot have {reason}")
    return configuration


def _unsupported(recipe: compression.PlainRecipe, runtime: str) -> str | None:
    return compression.unsupported(compression.Recipe.from_dict(recipe), runtime)


def _check_for_given_network(space: RecipeSpace) -> None:
    if TRAINING in space.content:
        raise SlimsearchError(
            f"--recipe-space: the network is trained already, so there is no '{TRAINING}'; stages have a learning_rate"
        )
    without = {choice.label: False if choice.label.endswith(".use") else choice.values[0] for choice in space.choices}
    for stage in space.candidate(without).recipe:
        raise SlimsearchError(
            f"--recipe-space: '{stage}' needs use: [true, false], so that the network as it was is among the candidates"
        )


def text_of(space: RecipeSpace) -> str:
    """`space` as JSON text, which `recipe_choices` reads: unlike a file, it does not change before a resume."""
    return json.dumps(space.content)


def read_choices(configuration: Configuration) -> RecipeSpace:
    """The choices of ``--co-search``, which is given; stages and values are not checked.

    Raises:
        SlimsearchError: the file is missing or invalid.
    """
    text = configuration.co_search or ""
    if text.lstrip().startswith("{"):
        try:
            return RecipeSpace(json.loads(text), _source(configuration))
        except (ValueError, RecursionError) as error:
            raise SlimsearchError(
                f"{configuration.flag('co_search')}: it is neither a file nor JSON: {error}"
            ) from error
    shipped = RecipeSpace.shipped()
    if text in shipped:
        return RecipeSpace.read(shipped[text])
    return RecipeSpace.read(Path(text).expanduser())


def _source(configuration: Configuration) -> str:
    text, flag = configuration.co_search, configuration.flag("co_search")
    if text is None:
        return "--search-hyperparameters"
    return flag if text.lstrip().startswith("{") else f"{flag} '{text}'"


def each_value(space: RecipeSpace) -> Iterator[Candidate]:
    """Candidates in which every value of every choice occurs, including choices that a value activates."""
    covered: set[str] = set()
    waiting = [space.canonical({c.label: c.values[0] for c in space.choices})]
    while waiting:
        point = waiting.pop()
        yield space.candidate(point)
        for neighbor in space.neighbours(point):
            new = {f"{label}={value!r}" for label, value in neighbor.items()} - covered
            if new:
                covered |= new
                waiting.append(neighbor)


def _check(space: RecipeSpace, configuration: Configuration) -> None:
    if configuration.model is not None:
        _check_for_given_network(space)
    for candidate in each_value(space):
        _check_candidate(candidate, configuration)


def _check_candidate(candidate: Candidate, configuration: Configuration) -> None:
    for stage, options in candidate.recipe.items():
        if options.get("teacher") == "best":
            parent = (
                "given network" if configuration.model is not None else "candidate's own network before compression"
            )
            raise SlimsearchError(
                f"{configuration.flag('co_search')}: '{stage}' has teacher: best, and which network is the best is not "
                f"known during the search; teacher: parent is the {parent}, and path/to/file.onnx any other"
            )
    compression.Recipe.from_dict(candidate.recipe).check()
    for name, value in candidate.training.items():
        if name not in HYPERPARAMETERS:
            similar, listed = did_you_mean(name, HYPERPARAMETERS), ", ".join(HYPERPARAMETERS)
            raise SlimsearchError(f"training has no '{name}' to search; it has {listed}{similar}")
        problem = _problem(name, value)
        if problem is not None:
            raise SlimsearchError(f"training: {name} {value!r} {problem}")


def _problem(name: str, value: Any) -> str | None:
    if name == "augmentation":
        named = isinstance(value, str) and all(step in NAMED for step in value.split("+"))
        return None if named else f"is none of {', '.join(NAMED)}, joined by +"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "is not a number"
    if name == "batch_size":
        return None if isinstance(value, int) and value >= 2 else "is not a whole number from 2 on"
    if name == "warm_up":
        return None if 0 < value < 1 else "is not between 0 and 1"
    if name == "weight_decay":
        return None if value >= 0 else "is below 0"
    return None if value > 0 else "is not above 0"
