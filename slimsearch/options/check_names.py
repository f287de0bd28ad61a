"""Checks of the names and files in the options, before PyTorch and NNI are imported."""

from __future__ import annotations

from pathlib import Path

from slimsearch.compression import Recipe
from slimsearch.errors import SlimsearchError, did_you_mean
from slimsearch.names import built_in_names, check_name
from slimsearch.options.configuration import (
    BUILT_INS,
    DATA_FILES,
    EXPORTED,
    FROM_PYTHON,
    HUGGING_FACE,
    TORCHVISION,
    Configuration,
    ModelKind,
    check_run_directory,
    run_and_trial,
)
from slimsearch.options.recipe_choices import read_choices
from slimsearch.search_spaces import TRAINING


def check_names(configuration: Configuration, *, trained: bool = True) -> None:
    """Check that what the options name exists, as far as that takes no time.

    Args:
        configuration: the options.
        trained: whether the weights of a given network are needed.

    Raises:
        SlimsearchError: there is no built-in, file, module, class or function of a name; similar names are proposed.
    """
    names = [(kind, getattr(configuration, kind), BUILT_INS[kind]) for kind in ("space", "strategy", "sampler", "task")]
    names += [("logger", log.strip(), BUILT_INS["log"]) for log in (configuration.log or "").split(",")]
    names += [("evaluator", configuration.evaluator, "")] if ":" in configuration.evaluator else []
    names += [(kind, getattr(configuration, kind) or "", "") for kind in ("fit", "score", "lightning")]
    names += [("metric", entry.partition("=")[2].strip(), "") for entry in (configuration.metrics or "").split(",")]
    names += [("augmentation", step, "") for step in configuration.augment.split("+") if ":" in step]
    for kind, name, package in names:
        if name and not name.startswith(FROM_PYTHON) and name != "none":
            check_name(kind, name, package)
    _check_data(configuration.dataset)
    init = configuration.init
    if init is not None and not init.startswith(TORCHVISION) and not Path(init).expanduser().is_file():
        raise SlimsearchError(f"{configuration.flag('init')}: cannot read the weights '{init}': there is no such file")
    if configuration.model is not None:
        _check_model(configuration.model, init, trained=trained)
    if configuration.co_search is not None:
        content = read_choices(configuration).content
        Recipe.check_names({stage: {} for stage in content if stage != TRAINING})
    else:
        Recipe.check_names(configuration.compress)


def _check_model(name: str, weights: str | None, *, trained: bool) -> None:
    kind = ModelKind.of(name)
    if trained and weights is None and kind in (ModelKind.TORCHVISION, ModelKind.TIMM):
        raise SlimsearchError(f"'{name}' needs --weights, a .safetensors or .pth file of the trained network")
    if weights is not None and kind in (ModelKind.PROGRAM, ModelKind.RUN):
        raise SlimsearchError(f"'{name}' has its weights: leave out --weights")
    trial = run_and_trial(name)
    if trial is not None:
        check_run_directory(Path(trial[0]))
    elif kind is ModelKind.PROGRAM:
        if not Path(name).is_file():
            raise SlimsearchError(f"model '{name}': there is no such file")
    elif kind is ModelKind.CODE:
        folder, _, number = name.rpartition(":")
        if folder and Path(folder).is_dir():
            raise SlimsearchError(f"model '{name}': '{number}' is not the number of a trial, as in {folder}:7")
        check_name("model", name)
        if ":" not in name:
            raise SlimsearchError(
                f"model '{name}' is none of path/to/file.py:function, torchvision:NAME, timm:NAME, runs/NAME:TRIAL "
                f"and a {EXPORTED} file"
            )


def _check_data(name: str) -> None:
    known = built_in_names(BUILT_INS["dataset"])
    if name in known or name == FROM_PYTHON or name.startswith(HUGGING_FACE):
        return
    try:
        path = Path(name).expanduser()
        found = path.is_dir() or (path.is_file() and path.suffix.lower() in DATA_FILES)
    except (OSError, ValueError, RuntimeError):
        found = False
    if not found and ":" in name:
        check_name("data set", name)
    elif not found:
        similar, listed = did_you_mean(name, known), ", ".join(known)
        raise SlimsearchError(
            f"unknown data set '{name}'; known: {listed}, or the path of an image folder or of a file "
            f"({', '.join(DATA_FILES)}), or {HUGGING_FACE}NAME{similar}"
        )
