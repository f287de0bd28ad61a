"""Networks that exist already: those that runs have stored, and the one that a run is given to compress."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError, describe_error, did_you_mean
from slimsearch.evaluators.datasets import fields_from
from slimsearch.names import no_code_from
from slimsearch.options.chosen import models
from slimsearch.options.configuration import (
    TIMM,
    TORCHVISION,
    Configuration,
    ModelKind,
    run_and_trial,
    space_from_python,
)
from slimsearch.options.initial_weights import torchvision_weights, trained_weights
from slimsearch.packed import named
from slimsearch.reading import mismatch, read_json
from slimsearch.search_spaces import FixedModel, ModelSpace, read_program

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...] | Mapping[str, tuple[int, ...]]
_TEXTS = ("mean?", "std?", "inputs?", "outputs?")  # of a data set in environment.json


@dataclass(frozen=True)
class InputsInTraining:
    """The inputs that a network was trained on.

    Attributes:
        mean, std: their normalization, per channel of images, of pixel / 255, or per column of a table.
        size: of images in pixels, the side of a square or WIDTHxHEIGHT; None: the inputs are no images.
        classes: names in the order of the logits, if known.
        source: who declares this.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: str | None
    classes: tuple[str, ...] | None
    source: str


def inputs_in_training(configuration: Configuration) -> InputsInTraining | None:
    """What torchvision, timm or a run declare about the inputs of the given network; None for other models.

    Raises:
        SlimsearchError: there is no such model.
    """
    name, weights = configuration.model or "", configuration.init or ""
    trial = run_and_trial(name)
    if trial is not None:
        data = _data_of(Path(trial[0]))
        mean, std = (tuple(json.loads(data[key])) for key in ("mean", "std"))
        size = None
        if len(data["input_shape"]) == 3:
            _, height, width = data["input_shape"]
            size = str(width) if width == height else f"{width}x{height}"
        return InputsInTraining(mean, std, size, tuple(json.loads(data["classes"])), f"'{trial[0]}'")
    kind = ModelKind.of(name)
    if kind is ModelKind.TORCHVISION and weights.startswith(TORCHVISION):
        found = torchvision_weights(weights, "--weights")
        preset, classes = found.transforms(), tuple(found.meta["categories"])
        return InputsInTraining(
            tuple(preset.mean), tuple(preset.std), str(preset.crop_size[0]), classes, f"torchvision's {found}"
        )
    if kind is ModelKind.TIMM:
        cfg = _timm().get_pretrained_cfg(_timm_name(name))
        if cfg is not None:
            size = str(cfg.input_size[-1])
            return InputsInTraining(tuple(cfg.mean), tuple(cfg.std), size, None, "timm's configuration")
    return None


def usual_image_size(name: str) -> int | None:
    """Height and width in pixels for which torchvision or timm have weights of a model; None if unknown.

    Raises:
        SlimsearchError: there is no such model.
    """
    kind = ModelKind.of(name)
    if kind is ModelKind.TIMM:
        cfg = _timm().get_pretrained_cfg(_timm_name(name))
        return None if cfg is None else int(cfg.input_size[-1])
    if kind is ModelKind.TORCHVISION:
        return int(torchvision_weights(name, "--model").transforms().crop_size[0])
    return None


def fixed_model(
    configuration: Configuration, input_shape: Shape, classes: int, *, module: nn.Module | None = None,
    trained: bool = True,
) -> FixedModel:  # fmt: skip
    """The network that a run is given to compress, as a space of its own.

    Args:
        configuration: names the network and its weights.
        input_shape: (C, H, W) of one image.
        classes: of the data set.
        module: passed from Python.
        trained: False if only the architecture is needed.

    Raises:
        SlimsearchError: there is no such model, it needs weights, or these are those of another network.
    """
    name = configuration.model or ""
    if module is not None:
        return FixedModel(functools.partial(Network.copy_module, Network(module)), input_shape, classes)
    model = _named(name, input_shape, classes)
    if not trained or configuration.init is None:
        return model
    weights = trained_weights(configuration.init, model.construct(), classes, download=configuration.download)
    return FixedModel(model.make, input_shape, classes, weights)


def _named(name: str, input_shape: Shape, classes: int) -> FixedModel:
    trial = run_and_trial(name)
    if trial is not None:
        return FixedModel(functools.partial(_network_of_run, *trial), input_shape, classes)
    kind = ModelKind.of(name)
    if kind is ModelKind.PROGRAM:
        return FixedModel(functools.partial(read_program, name), input_shape, classes)
    if kind is ModelKind.TORCHVISION:
        return FixedModel(functools.partial(_torchvision_model, name.removeprefix(TORCHVISION)), input_shape, classes)
    if kind is ModelKind.TIMM:
        _timm_name(name)
        return FixedModel(functools.partial(_timm_model, name.removeprefix(TIMM)), input_shape, classes)
    return FixedModel.load(name, input_shape, classes)


def _torchvision_model(name: str, num_classes: int) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise SlimsearchError(f"torchvision has no classifier '{name}'{did_you_mean(name, known)}")
    module: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    return module


def _timm_model(name: str, num_classes: int) -> nn.Module:
    module: nn.Module = _timm().create_model(name, pretrained=False, num_classes=num_classes)
    return module


def _timm_name(name: str) -> str:
    found = name.removeprefix(TIMM)
    if ":" in found or "/" in found:
        raise SlimsearchError(f"'{name}': timm's own models have no path; nothing is fetched from a hub")
    timm = _timm()
    if not timm.is_model(found):
        raise SlimsearchError(f"timm has no model '{found}'{did_you_mean(found, timm.list_models())}")
    return found


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise SlimsearchError("timm:NAME needs timm: pip install 'slimsearch[timm]'") from error
    return timm


def _network_of_run(directory: str, trial: int) -> nn.Module:
    entries = models(directory)
    found = next((entry for entry in entries if entry.get("trial") == trial), None)
    if found is None:
        known = ", ".join(str(entry["trial"]) for entry in entries if "trial" in entry)
        raise SlimsearchError(f"trial {trial} of '{directory}' is not one of its finalists: {known}")
    network = stored_network(Path(directory), found)
    if network.quantization is not None:
        raise SlimsearchError(f"trial {trial} of '{directory}' is quantized: name one that is not")
    return network.module


def stored_network(
    folder: Path, model: Mapping[str, Any], *, space: Any = None, build: Callable[..., Any] | None = None
) -> Network:
    """The network of an entry of ``top_models.json``; for an int8 file, the float32 network that was quantized.

    Args:
        folder: the run directory.
        model: the entry.
        space, build: the objects of the space, or the given network, if the run was started with them from Python.

    Raises:
        SlimsearchError: the network cannot be built or loaded.
    """
    wrong = mismatch(model, {"architecture": dict, "artifact": str})
    if wrong is not None:
        raise SlimsearchError(f"an entry of top_models.json is damaged: {wrong}")
    data = _data_of(folder)
    file = (folder / model["artifact"]).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise SlimsearchError(f"'{model['artifact']}' is not in '{folder}'")
    fields, outputs = (json.loads(data.get(key, "{}")) for key in ("inputs", "outputs"))
    shape: Shape = {name: tuple(one["shape"]) for name, one in fields.items()} or tuple(data["input_shape"])
    classes = len(json.loads(data["classes"]))
    with no_code_from(folder):
        configuration = Configuration.read(folder / "config.yaml")
        if configuration.model is not None:
            found: FixedModel | ModelSpace = _given_again(folder, configuration, shape, classes, space)
        else:
            found = _space_again(folder, configuration, shape, classes, space, build)
        found.outputs = named(outputs)
        fresh = found.build(model["architecture"])
    return Network.load(fresh, file.parent)


def _space_again(
    folder: Path, configuration: Configuration, shape: Shape, classes: int, space: Any,
    build: Callable[..., Any] | None,
) -> ModelSpace:  # fmt: skip
    named = configuration.space if space is None else space
    given = space_from_python(named) if isinstance(named, str) else None
    if given is not None:
        raise SlimsearchError(
            f"'{folder}' was begun from Python with {given}; load its networks there: "
            "slimsearch.load_network(run, model, space=...)"
        )
    return ModelSpace.load(named, shape, classes, build)


def _given_again(
    folder: Path, configuration: Configuration, shape: Shape, classes: int, module: Any
) -> FixedModel:  # fmt: skip
    name = configuration.model or ""
    kind = ModelKind.of(name)
    if module is None and kind is ModelKind.PYTHON:
        raise SlimsearchError(
            f"'{folder}' was begun from Python with a network; load its networks there: "
            "slimsearch.load_network(run, model, space=network)"
        )
    if kind is ModelKind.PROGRAM and Path(name).resolve().is_relative_to(folder.resolve()):
        raise SlimsearchError(f"model '{name}' is in '{folder}': code in a run directory is not run")
    found = fixed_model(configuration, shape, classes, module=module, trained=False)
    found.output_shape = None  # it was checked by the run, and depends on the task
    return found


def _data_of(folder: Path) -> dict[str, Any]:
    """What ``environment.json`` says about the data set of a run."""
    path = folder / "environment.json"
    environment = read_json(path)
    wrong = mismatch(environment, {"dataset": {"input_shape": [int], "classes": str, **dict.fromkeys(_TEXTS, str)}})
    if wrong is not None:
        raise SlimsearchError(f"'{path}' is damaged: {wrong}")
    data: dict[str, Any] = environment["dataset"]
    try:
        lists = [json.loads(data[name]) for name in ("classes", "mean", "std") if name in data]
        fields_from(json.loads(data.get("inputs", "{}")))
        wrong = mismatch(json.loads(data.get("outputs", "{}")), {str: [int]})
    except (ValueError, TypeError, RecursionError) as error:
        raise SlimsearchError(f"'{path}' is damaged: {describe_error(error)}") from error
    if wrong is not None:
        raise SlimsearchError(f"'{path}' is damaged: {wrong}")
    if not all(isinstance(one, list) for one in lists):
        raise SlimsearchError(f"'{path}' is damaged: its classes are not a list")
    return data
