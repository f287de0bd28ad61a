"""A recipe: compression stages by name with their options, as data, and how it is applied."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slimsearch.compression._network import Network
from slimsearch.compression._stage import Stage, Training, TrainingStage, shared_epochs, train_together
from slimsearch.errors import SlimsearchError
from slimsearch.names import absolute, load_class
from slimsearch.reading import mismatch, read_yaml, yaml_value

Recipe = Mapping[str, Mapping[str, Any]]
"""Stages by name with their options; a name after a ``+`` shares the training run of the stage before it."""

_FOLDER = Path(__file__).parent / "recipes"
_PLAIN: Mapping[str, Any] = {"str": str, "int": int, "float": float, "bool": bool, "None": type(None)}
_JOINED = re.compile(r"\+(?=[A-Za-z_])")  # not that of a number such as 1e+3


def parse(text: str) -> dict[str, dict[str, Any]]:
    """The recipe that `text` stands for.

    Args:
        text: ``prune:sparsity=0.6:epochs=4,distill,quantize``, a stage after a ``+`` sharing the training run of the
            one before it; the name of a shipped recipe; the path of a YAML file; or "none" for the empty recipe.

    Raises:
        SlimsearchError: an unknown stage or option, or an order that makes no sense.
    """
    text = text.strip()
    if text.lower() in ("", "none"):
        return {}
    if text in shipped():
        return read(_FOLDER / f"{text}.yaml")
    if text.endswith((".yaml", ".yml")) and "," not in text:
        return read(Path(text).expanduser())
    recipe: dict[str, dict[str, Any]] = {}
    for joined in text.split(","):
        for position, part in enumerate(_JOINED.split(joined)):
            name, *options = _pieces(part)
            name = f"+{name}" if position else name
            _add(recipe, name, text)
            for option in options:
                label, equals, value = option.partition("=")
                if not equals:
                    raise SlimsearchError(f"option '{option}' of stage '{name}' is not of the form name=value")
                recipe[name][label.replace("-", "_")] = yaml_value(value)
    stages(recipe)
    return recipe


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def read(path: Path) -> dict[str, dict[str, Any]]:
    """A recipe from a YAML file: a mapping of stages, in order, to their options.

    Raises:
        SlimsearchError: it cannot be read, or an unknown stage or option, or an order that makes no sense.
    """
    try:
        values = read_yaml(path)
    except FileNotFoundError:
        raise SlimsearchError(f"there is no recipe '{path}'; shipped ones: {', '.join(shipped())}") from None
    if not isinstance(values, dict) or not all(isinstance(v, dict | None) for v in values.values()):
        raise SlimsearchError(f"'{path}' is not a mapping of stages to their options")
    recipe: dict[str, dict[str, Any]] = {}
    for name, options in values.items():
        _add(recipe, str(name), str(path))
        recipe[str(name)] = {str(label).replace("-", "_"): value for label, value in (options or {}).items()}
    stages(recipe)
    return recipe


def with_option(recipe: Recipe, option: str, value: Any) -> dict[str, dict[str, Any]]:
    """`recipe` with an option given to every stage that has it and was not told otherwise."""
    return {
        name: dict(options) if option in options or not hasattr(stage, option) else {**options, option: value}
        for (name, options), stage in zip(recipe.items(), stages(recipe), strict=True)
    }


def text_of(recipe: Recipe) -> str:
    """What `parse` reads as `recipe`, with the paths of files made absolute: it means the same everywhere."""
    parts = []
    for name, options in recipe.items():
        plus, own = ("+", name[1:]) if name.startswith("+") else (",", name)
        words = [f"{label}={_word(value)}" for label, value in options.items()]
        parts.append(plus + ":".join([absolute(own), *words]))
    return "".join(parts).lstrip(",") or "none"


def _word(value: Any) -> str:
    if isinstance(value, str):
        path = Path(value).expanduser()
        return str(path.resolve()) if path.suffix == ".onnx" else absolute(value)
    return json.dumps(value)


def _pieces(part: str) -> list[str]:
    """What stands between colons, except for that of path/to/file.py:Class."""
    pieces: list[str] = []
    for piece in part.strip().split(":"):
        if pieces and pieces[-1].endswith(".py") and "=" not in piece:
            pieces[-1] = f"{pieces[-1]}:{piece.strip()}"
        else:
            pieces.append(piece.strip())
    return pieces


def _add(recipe: dict[str, dict[str, Any]], name: str, source: str) -> None:
    if name.lstrip("+") in [known.lstrip("+") for known in recipe]:
        raise SlimsearchError(f"stage '{name.lstrip('+')}' stands twice in {source}")
    recipe[name] = {}


def stages(recipe: Recipe) -> list[Stage]:
    """The stages of `recipe`, made with their options.

    Raises:
        SlimsearchError: an unknown stage or option, a wrong value, or an order that makes no sense.
    """
    made: list[Stage] = []
    for key, options in recipe.items():
        name = key.removeprefix("+")
        if made and made[-1].is_last and not key.startswith("+"):
            raise SlimsearchError(f"nothing can follow '{list(recipe)[len(made) - 1]}': put '{name}' before it")
        stage_class = load_class("stage", name, "slimsearch.compression")
        if Stage not in stage_class.__mro__:
            raise SlimsearchError(f"stage '{name}' is no subclass of compression.Stage")
        if dataclasses.is_dataclass(stage_class):
            known = [f.name for f in dataclasses.fields(stage_class) if f.init]
            for option in options:
                if option not in known:
                    raise SlimsearchError(f"stage '{name}' has no option '{option}'; it has {', '.join(known)}")
            _check_types(name, stage_class, options)
        try:
            stage: Stage = stage_class(**options)
            made.append(stage)
        except (TypeError, ValueError) as error:
            raise SlimsearchError(f"stage '{name}' with {dict(options)}: {error}") from error
    return made


def _check_types(name: str, stage_class: type[Any], options: Mapping[str, Any]) -> None:
    """Refuse an option whose value is not of the plain type that its field has."""
    for own in dataclasses.fields(stage_class):
        kinds = str(getattr(own.type, "__name__", own.type)).split(" | ")
        if own.name not in options or not set(kinds) <= _PLAIN.keys():
            continue
        value, label = options[own.name], f"stage '{name}': option '{own.name}'"
        wrong = mismatch(value, functools.reduce(operator.or_, (_PLAIN[kind] for kind in kinds)), label)
        if wrong is None and isinstance(value, float) and not math.isfinite(value):
            wrong = f"{label} is {value}, no finite number"
        if wrong is not None:
            raise SlimsearchError(wrong)


def groups(recipe: Recipe) -> Iterator[dict[str, dict[str, Any]]]:
    """Parts of `recipe` that are applied, scored and kept or taken back as one.

    A stage joined with ``+`` shares the training run of the one before it. So does, without being asked, a stage that
    only adds to the loss: pruning is fine-tuned with the loss of the distillation next to it.

    Raises:
        SlimsearchError: a stage is joined that does not train, or to nothing that trains.
    """
    group: dict[str, dict[str, Any]] = {}
    members: list[Stage] = []
    for (name, options), stage in zip(recipe.items(), stages(recipe), strict=True):
        joins = bool(members) and all(isinstance(s, TrainingStage) for s in (*members, stage))
        if name.startswith("+") and not joins:
            raise SlimsearchError(f"'{name}' has no training to share with '{next(reversed(group), 'nothing')}'")
        loss_alone = not stage.changes_cost or not any(s.changes_cost for s in members)
        if members and not (joins and (name.startswith("+") or loss_alone)):
            yield group
            group, members = {}, []
        group[name] = dict(options)
        members.append(stage)
    if group:
        yield group


def apply(recipe: Recipe, network: Network, training: Training) -> Network:
    """`network` after every stage of `recipe`, in order."""
    for group in groups(recipe):
        made: Sequence[Stage] = stages(group)
        together = [stage for stage in made if isinstance(stage, TrainingStage)]
        network = train_together(together, network, training) if together else made[0].apply(network, training)
    return network


def steps(recipe: Recipe, epochs: int) -> list[tuple[Recipe, float]]:
    """The groups of `recipe`, each with how long it trains: 1.0 is the `epochs` that a network is trained for."""
    found: list[tuple[Recipe, float]] = []
    for group in groups(recipe):
        training = [stage for stage in stages(group) if isinstance(stage, TrainingStage)]
        found.append((group, shared_epochs(training, epochs) / epochs if training else 0.0))
    return found


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
