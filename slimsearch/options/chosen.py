"""Architectures chosen with ``--architectures``, and the options of a run that retrains them."""

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
# Options of a search, of its machine and of its output; a retraining takes over all others.
_OF_THE_SEARCH = {
    "architectures", "strategy", "sampler", "scheduler", "evaluator", "model", "elastic", "subnets", "supernet_epochs",
    "supernet_sampling", "co_search", "search_hyperparameters", "trials", "epochs", "timeout", "stop_at", "patience",
    "top_k", "repeats", "seed", "workers", "trial_timeout", "retries", "ray_address", "cpus_per_trial",
    "gpus_per_trial", "keep_dashboard", "device_host", "storage", "study", "heartbeat", "log", "run_dir",
}  # fmt: skip
_COSTS = ("max_latency_ms", "max_size_kib", "max_ram_kib", "max_flash_kib", "max_params", "max_macs")
LONGER = 4
"""Epochs of a retraining, as a multiple of those of the search."""


def architectures(text: str) -> list[dict[str, Any]]:
    """The architectures of ``--architectures``.

    Args:
        text: JSON, or the path of a run directory, of a top_models.json, or of a YAML or JSON file with a dict or a
            list of dicts.

    Raises:
        SlimsearchError: the file is missing or invalid.
    """
    return [model["architecture"] for model in models(text)]


def models(text: str) -> list[dict[str, Any]]:
    """The entries of `text` as in top_models.json; at least an ``architecture`` each."""
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
    """The options of a run that trains chosen architectures again, for longer.

    Args:
        text: see `architectures`.
        numbers: of the trials to retrain; empty: those on the front, or all if no front is known.
        options: override those of the earlier run, whose epochs are multiplied by `LONGER`.

    Raises:
        SlimsearchError: there are no such models, or an option is missing or invalid.
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
    if before is not None and before.model is not None:
        raise SlimsearchError(f"'{text}' compressed a network that was trained already: there is nothing to retrain")
    if before is not None and before.device_host is not None and "device_host" not in options:
        raise SlimsearchError(
            f"'{text}' measured latency on {before.device_host}, whose address is not stored: add --device-host "
            "user@board, or --device-host none for this machine"
        )
    settings: dict[str, Any] = {}
    if before is not None:
        settings = {name: value for name, value in vars(before).items() if name not in _OF_THE_SEARCH}
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
    """The options for the recipe of the models, unless another one is `given`; without the limits on compressed files.

    Raises:
        SlimsearchError: the models have different recipes.
    """
    recipes = {json.dumps(model.get("recipe", {})): model.get("recipe", {}) for model in chosen}
    if len(recipes) > 1 and not given:
        raise SlimsearchError(
            "these models have different recipes: name some by --models, or one for all by --compress"
        )
    unlimited: dict[str, Any] = dict.fromkeys((*_COSTS, "target"))
    return unlimited if given else {**unlimited, "compress": Recipe.from_dict(next(iter(recipes.values()))).text()}


def _before(text: str) -> Configuration | None:
    """The options of the run in a path, if it is one."""
    if text.lstrip().startswith(("{", "[")):
        return None
    path = Path(text).expanduser()
    config = (path if path.is_dir() else path.parent) / _CONFIG
    return Configuration.read(config) if config.is_file() else None
