"""A recipe: compression stages by name with their options, as data, and how it is applied."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from compression._network import Network
from compression._stage import Stage, Training, TrainingStage, train_together
from slimsearch_errors import SlimsearchError
from slimsearch_names import load_class

Recipe = Mapping[str, Mapping[str, Any]]


def parse(text: str) -> dict[str, dict[str, Any]]:
    """The recipe that ``prune:sparsity=0.6:epochs=4,distill,quantize`` stands for; "none" is the empty one.

    Raises:
        SlimsearchError: an unknown stage or option, or an order that makes no sense.
    """
    recipe: dict[str, dict[str, Any]] = {}
    if text.strip().lower() in ("", "none"):
        return recipe
    for part in text.split(","):
        name, *options = (piece.strip() for piece in part.strip().split(":"))
        if len(options) == 1 and "=" not in options[0] and name.endswith(".py"):
            name, options = f"{name}:{options[0]}", []  # path/to/file.py:Class
        if name in recipe:
            raise SlimsearchError(f"stage '{name}' stands twice in --compress {text}")
        recipe[name] = {}
        for option in options:
            label, equals, value = option.partition("=")
            if not equals:
                raise SlimsearchError(f"option '{option}' of stage '{name}' is not of the form name=value")
            recipe[name][label.replace("-", "_")] = yaml.safe_load(value)
    stages(recipe)
    return recipe


def stages(recipe: Recipe) -> list[Stage]:
    """The stages of `recipe`, made with their options.

    Raises:
        SlimsearchError: an unknown stage or option, a wrong value, or an order that makes no sense.
    """
    made: list[Stage] = []
    for name, options in recipe.items():
        if made and made[-1].is_last:
            raise SlimsearchError(f"nothing can follow '{list(recipe)[len(made) - 1]}': put '{name}' before it")
        stage_class = load_class("stage", name, "compression")
        if Stage not in stage_class.__mro__:
            raise SlimsearchError(f"stage '{name}' is no subclass of compression.Stage")
        if dataclasses.is_dataclass(stage_class):
            known = [f.name for f in dataclasses.fields(stage_class) if f.init]
            for option in options:
                if option not in known:
                    raise SlimsearchError(f"stage '{name}' has no option '{option}'; it has {', '.join(known)}")
        try:
            stage: Stage = stage_class(**options)
            made.append(stage)
        except (TypeError, ValueError) as error:
            raise SlimsearchError(f"stage '{name}' with {dict(options)}: {error}") from error
    return made


def groups(recipe: Recipe) -> Iterator[dict[str, dict[str, Any]]]:
    """Parts of `recipe` that are applied, scored and kept or taken back as one.

    Stages that train and stand next to each other share a training run: pruning is fine-tuned with the loss
    that distillation adds. Every other stage stands alone.
    """
    group: dict[str, dict[str, Any]] = {}
    for (name, options), stage in zip(recipe.items(), stages(recipe), strict=True):
        trains = isinstance(stage, TrainingStage)
        if group and not trains:
            yield group
            group = {}
        group[name] = dict(options)
        if not trains:
            yield group
            group = {}
    if group:
        yield group


def apply(recipe: Recipe, network: Network, training: Training) -> Network:
    """`network` after every stage of `recipe`, in order."""
    for group in groups(recipe):
        made: Sequence[Stage] = stages(group)
        together = [stage for stage in made if isinstance(stage, TrainingStage)]
        network = train_together(together, network, training) if together else made[0].apply(network, training)
    return network


def remainder(recipe: Recipe, done: Recipe) -> dict[str, Mapping[str, Any]]:
    """What of `recipe` is left to do for a network to which `done`, its beginning, was applied.

    Raises:
        SlimsearchError: `done` is not the beginning of `recipe`.
    """
    names = list(recipe)
    if json.dumps({n: dict(recipe[n]) for n in names[: len(done)]}) != json.dumps({n: dict(done[n]) for n in done}):
        raise SlimsearchError(f"recipe {dict(recipe)} does not begin with {dict(done)}")
    return {name: recipe[name] for name in names[len(done) :]}


def changes_cost(recipe: Recipe) -> bool:
    """Whether latency or size can gain by `recipe`."""
    return any(stage.changes_cost for stage in stages(recipe))
