"""Chosen architectures, named by a run, a file or JSON, and the run that trains them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimsearch.compression import Recipe
from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import Configuration
from slimsearch.reading import mismatch, read_yaml, yaml_value

_MODELS, _CONFIG = "top_models.json", "config.yaml"
# Options about networks, and how they are trained, scored and compressed; not about how they are searched.
_INHERITED = (
    "space", "dataset", "data_root", "download", "image_size", "objectives", "objective", "weights", "targets",
    "max_latency_ms", "max_size_kib", "max_params", "max_macs", "min_accuracy", "metrics", "compress", "int8_target",
    "max_drop", "device", "precision", "training_threads", "batch_size", "learning_rate", "init",
    "epoch_images", "normalise", "augment", "latency_batch", "latency_threads", "latency", "runtime",
)  # fmt: skip
_MODEL = {
    "architecture": {str: object}, "trial?": int, "on_front?": bool, "training?": dict, "recipe?": {str: {str: object}},
}  # fmt: skip
_COSTS = ("max_latency_ms", "max_size_kib", "max_params", "max_macs")
LONGER = 4
"""Epochs of a training again, in trainings of the search."""


def architectures(text: str) -> list[dict[str, Any]]:
    """The architectures of ``--architectures``.

    Args:
        text: JSON, or the path of a run directory, of a top_models.json, or of a YAML or JSON file with a list of
            dicts or with one.

    Raises:
        SlimsearchError: there is no such file, or it holds something else.
    """
    return [model["architecture"] for model in models(text)]


def models(text: str) -> list[dict[str, Any]]:
    """The architectures, each with its other entries of top_models.json."""
    if text.lstrip().startswith(("{", "[")):
        content, source = yaml_value(text), "--architectures"
    else:
        path = Path(text).expanduser()
        path = path / _MODELS if path.is_dir() else path
        source = f"'{path}'"
        try:
            content = read_yaml(path)
        except FileNotFoundError:
            raise SlimsearchError(f"there are no architectures in '{path}': no such file") from None
    listed = content if isinstance(content, list) else [content]
    found = [one if isinstance(one, dict) and "architecture" in one else {"architecture": one} for one in listed]
    wrong = mismatch(
        found,
        [{"architecture": {str: object}, "trial?": int, "on_front?": bool, "training?": dict, "recipe?": {str: dict}}],
    )
    if wrong is not None or not found:
        raise SlimsearchError(f"{source} holds no architectures: {wrong or 'it is empty'}")
    return found


def retraining(text: str, numbers: Sequence[int], options: Mapping[str, Any]) -> Configuration:
    """The run that trains chosen architectures again, for longer.

    Args:
        text: see `architectures`.
        numbers: of the trials to train again; empty: those on the front, or all where no front is known.
        options: given ones; the others are those of the run that the architectures come from, whose epochs are
            multiplied by `LONGER`.

    Raises:
        SlimsearchError: there are no such models, or options are missing.
    """
    all_models = models(text)
    by_number = {model["trial"]: model for model in all_models if "trial" in model}
    unknown = [number for number in numbers if number not in by_number]
    if unknown:
        known = ", ".join(map(str, by_number)) or "none, the file has no trials"
        raise SlimsearchError(f"--models {unknown[0]} is not one of the trials: {known}")
    chosen = [by_number[number] for number in numbers]
    chosen = chosen or [model for model in all_models if model.get("on_front", True)] or all_models
    trained = {json.dumps(model["training"], sort_keys=True) for model in chosen if model.get("training")}
    if len(trained) > 1:
        raise SlimsearchError("these models were trained with different hyper-parameters: name some by --models")
    before = _before(text)
    settings = {} if before is None else {name: getattr(before, name) for name in _INHERITED}
    if before is not None:
        settings["epochs"] = before.epochs * LONGER
        if before.co_search is not None:
            settings |= _recipe_of(chosen, given="compress" in options)
    for name, value in (json.loads(trained.pop()) if trained else {}).items():
        settings[{"augmentation": "augment"}.get(name, name)] = value
    different = {json.dumps(model["architecture"], sort_keys=True): model["architecture"] for model in chosen}
    settings["architectures"] = json.dumps(list(different.values()))
    settings["trials"] = settings["top_k"] = len(different)
    settings["sampler"] = "grid"
    return Configuration(**{**settings, **options})


def _recipe_of(chosen: Sequence[Mapping[str, Any]], *, given: bool) -> dict[str, Any]:
    """The options for the recipe with which architectures were found, unless another one is `given`.

    The limits on costs are removed: they were for compressed files.

    Raises:
        SlimsearchError: they were found with different ones.
    """
    recipes = {json.dumps(model.get("recipe", {})): model.get("recipe", {}) for model in chosen}
    if len(recipes) > 1 and not given:
        raise SlimsearchError(
            "these models have different recipes: name some by --models, or one for all by --compress"
        )
    unlimited: dict[str, Any] = dict.fromkeys(_COSTS)
    return unlimited if given else {**unlimited, "compress": Recipe.from_dict(next(iter(recipes.values()))).text()}


def _before(text: str) -> Configuration | None:
    """The options of the run that a path belongs to."""
    if text.lstrip().startswith(("{", "[")):
        return None
    path = Path(text).expanduser()
    config = (path if path.is_dir() else path.parent) / _CONFIG
    return Configuration.read(config) if config.is_file() else None
