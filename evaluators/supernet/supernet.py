"""Weights that all networks of a space share, and the networks that inherit them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.deployed.deployed_model import DeployedModel
from slimsearch.evaluators.network_evaluator import LatencySettings, NetworkEvaluator, UserMetric
from slimsearch.evaluators.supernet.slots import Slot, slots_of
from slimsearch.evaluators.task import Outcome, Report, Task
from slimsearch.evaluators.training.image_training import ImageTraining, TrainingSettings
from slimsearch.files import atomic, write_json
from slimsearch.reading import mismatch, read_json
from slimsearch.search_spaces import ModelSpace

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, DESCRIPTION = "weights.safetensors", "supernet.json"
_FORMAT = 1

# Structures are a few kilobytes each: those of a space of a few thousand networks are all kept.
_MOST_STRUCTURES = 4096
_CALIBRATION_IMAGES = 2048
_CALIBRATION_BATCH = 256


@dataclass(frozen=True)
class Structure:
    """A network without weights of its own: `module` has empty parameters, `slots` say where each is found."""

    module: nn.Module
    slots: Mapping[str, Slot]

    @property
    def params(self) -> int:
        """Number of parameters."""
        return sum(int(np.prod(slot.shape)) for slot in self.slots.values())


class SharedWeights:
    """One tensor for every parameter that networks of a space have in common, of which each network uses a slice.

    Two networks share a parameter if it has the same path in the space, the chosen branches included, the same
    kernel, and inputs of the same make-up: a convolution of 3x3 shares nothing with one of 5x5, the branches of
    a `LayerChoice` share nothing, and a linear layer behind a flattened image shares with those that see as many
    positions of each channel, so that the slice of the narrower one belongs to the same channels. A layer behind a
    concatenation shares with those that see as many channels of each part. Grouped (not depthwise) convolutions, and
    parameters that are used in a way unknown here, are shared between equal shapes alone. Within a `Cell` every edge
    has weights of its own, as in DARTS.

    Source: sliced weights after slimmable networks (Yu et al. 2019) and once-for-all (Cai et al. 2020), without the
    latter's transformed kernels. Buffers (running statistics) are not shared: see `recalibrate`.

    Args:
        space: of the networks.
        device: where the tensors are.
        apart: labels of choices whose values share nothing at all: as many sets of weights as they have values
            (few-shot architecture search, Zhao et al. 2021).
    """

    def __init__(self, space: ModelSpace, device: str = "cpu", apart: Sequence[str] = ()) -> None:
        unknown = set(apart) - {choice.label for choice in space.choices}
        if unknown:
            raise SlimsearchError(
                f"unknown label '{min(unknown)}'; {space.space_class.__name__} has "
                f"{', '.join(choice.label for choice in space.choices)}"
            )
        self.space = space
        self.device = device
        self.apart = tuple(map(str, apart))
        self.tensors: dict[str, nn.Parameter] = {}
        self._structures: OrderedDict[str, Structure] = OrderedDict()

    def structure(self, architecture: Mapping[str, Any]) -> Structure:
        """The structure of `architecture`'s network, built at first use.

        Raises:
            SlimsearchError: it cannot be built, or does not take the images of the space.
        """
        canonical = self.space.canonical(architecture)
        key = json.dumps(canonical)
        if key in self._structures:
            self._structures.move_to_end(key)
            return self._structures[key]
        own = self.space.build(canonical)
        structure = Structure(own, slots_of(self.space, canonical, own, self.apart))
        for parameter in own.parameters():
            parameter.data = parameter.data.new_empty(0)
        own.to(self.device)
        self._structures[key] = structure
        if len(self._structures) > _MOST_STRUCTURES:
            self._structures.popitem(last=False)
        return structure

    def extend(self, architecture: Mapping[str, Any], seed: int = 0) -> list[str]:
        """Make room for `architecture`, with initial weights drawn from `seed`; the keys of new and larger tensors.

        A tensor that was too small becomes another `Parameter`, with what has been learned in its corner.
        """
        slots = self.structure(architecture).slots
        if all(self._holds(slot) for slot in slots.values()):
            return []
        fresh = dict(self.space.build(architecture, seed).named_parameters())
        changed = []
        for name, slot in slots.items():
            if not self._holds(slot):
                self.tensors[slot.key] = self._enlarged(slot, fresh[name], seed)
                changed.append(slot.key)
        return changed

    def views(self, architecture: Mapping[str, Any]) -> dict[str, Tensor]:
        """The parameters of `architecture`'s network by name: slices of the shared tensors, with their gradients.

        Raises:
            SlimsearchError: a tensor is missing or too small: nothing like it has been trained.
        """
        return self._views(architecture, self.structure(architecture).slots)

    def __call__(self, architecture: Mapping[str, Any], images: Tensor, *, training: bool = True) -> Tensor:
        """The logits of `architecture`'s network for `images`, (N, C, H, W) -> (N, num_classes)."""
        from torch.func import functional_call

        structure = self.structure(architecture)
        if structure.module.training != training:
            structure.module.train(training)
        return functional_call(structure.module, self._views(architecture, structure.slots), (images,))  # type: ignore[no-any-return]

    def inherit(self, module: nn.Module, architecture: Mapping[str, Any]) -> None:
        """Copy the weights of `architecture`'s network into `module`, as its space builds it.

        Raises:
            SlimsearchError: nothing like a part of it has been trained.
        """
        import torch

        views = self.views(architecture)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(views[name])

    def on(self, device: str) -> SharedWeights:
        """A copy whose tensors are on `device`."""
        import torch

        copy = SharedWeights(self.space, device, self.apart)
        for key, tensor in self.tensors.items():
            copy.tensors[key] = torch.nn.Parameter(tensor.detach().to(device, copy=True), tensor.requires_grad)
        return copy

    def _holds(self, slot: Slot) -> bool:
        tensor = self.tensors.get(slot.key)
        return tensor is not None and all(size <= most for size, most in zip(slot.shape, tensor.shape, strict=True))

    def _views(self, architecture: Mapping[str, Any], slots: Mapping[str, Slot]) -> dict[str, Tensor]:
        views: dict[str, Tensor] = {}
        for name, slot in slots.items():
            if not self._holds(slot):
                raise SlimsearchError(
                    f"the supernet has no weights for '{slot.key}' of {slot.shape} in {dict(architecture)}: "
                    "nothing like it was drawn while it was trained"
                )
            tensor = self.tensors[slot.key]
            views[name] = tensor if tensor.shape == slot.shape else tensor[tuple(map(slice, slot.shape))]
        return views

    def _enlarged(self, slot: Slot, fresh: nn.Parameter, seed: int) -> nn.Parameter:
        """A tensor with room for `slot`: what was there, `fresh` around it, the like of it where neither reaches."""
        import torch

        old = self.tensors.get(slot.key)
        values = fresh.detach()
        if old is not None:
            shape = tuple(map(max, slot.shape, old.shape))
            generator = torch.Generator().manual_seed(seed)
            spread = float(values.std()) if values.numel() > 1 else 0.0
            larger = torch.randn(shape, generator=generator) * spread + values.mean()
            larger[tuple(map(slice, slot.shape))] = values
            larger[tuple(map(slice, old.shape))] = old.detach().cpu()
            values = larger
        return torch.nn.Parameter(values.to(self.device, copy=True), requires_grad=fresh.requires_grad)


@dataclass(frozen=True)
class Supernet:
    """Trained shared weights.

    Attributes:
        weights: of all networks of the space.
        facts: how they were trained, as plain JSON values.
    """

    weights: SharedWeights
    facts: Mapping[str, Any] = field(default_factory=dict)

    def subnet(self, architecture: Mapping[str, Any], images: Tensor) -> nn.Module:
        """`architecture`'s network with inherited weights, in evaluation mode.

        Args:
            architecture: in the space.
            images: (N, C, H, W) float32, normalised training images for `recalibrate`.

        Raises:
            SlimsearchError: nothing like a part of it has been trained.
        """
        module = self.weights.space.build(architecture)
        self.weights.inherit(module, architecture)
        recalibrate(module, images)
        return module

    def save(self, directory: Path) -> None:
        """Write ``weights.safetensors`` and ``supernet.json`` into `directory`."""
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in self.weights.tensors.items()}
        with atomic(directory / WEIGHTS) as temporary:
            save_file(tensors, str(temporary))
        description = {
            "format": _FORMAT,
            "space": describe(self.weights.space),
            "apart": self.weights.apart,
            "facts": dict(self.facts),
        }
        write_json(directory / DESCRIPTION, description)

    @classmethod
    def load(cls, directory: Path, space: ModelSpace) -> Supernet:
        """What `save` wrote, for networks of the same `space`.

        Raises:
            SlimsearchError: files are missing or damaged, or belong to another space.
        """
        import torch
        from safetensors.torch import load_file

        try:
            description = read_json(directory / DESCRIPTION)
            wrong = mismatch(description, {"space": dict, "facts": dict, "apart": [str]})
            if wrong is not None:
                raise SlimsearchError(wrong)
            found, facts, apart = description["space"], description["facts"], description["apart"]
            tensors = load_file(str(directory / WEIGHTS))
        except Exception as error:  # safetensors, JSON and the file system each have their own
            raise SlimsearchError(f"cannot load the supernet in '{directory}': {error}") from error
        wanted = describe(space)
        for name, value in wanted.items():
            if found.get(name) != value:
                raise SlimsearchError(
                    f"the supernet in '{directory}' is of another space: its {name} is {found.get(name)}, not {value}"
                )
        weights = SharedWeights(space, apart=apart)
        weights.tensors = {key: torch.nn.Parameter(tensor) for key, tensor in tensors.items()}
        return cls(weights, facts)


@dataclass
class SupernetEvaluator:
    """Evaluates candidates with weights that they inherit from a supernet, in place of training them.

    Everything else, metrics and files included, is as with `NetworkEvaluator`; a task's fidelity is not looked at.
    There is one more metric, ``val_loss``: the mean cross-entropy of the exported file on the validation split. On
    `lenet` and mnist5k its ranks agree better with those of the trained accuracy than the inherited accuracy's do.

    Attributes:
        space: of the supernet, builds the networks.
        data_directory: a data set saved there, without its test split.
        supernet: the folder of a saved `Supernet`.
        training, latency: how stages of a recipe train, and how latency is measured.
        metrics: further metrics by name.
    """

    space: ModelSpace
    data_directory: Path
    supernet: Path
    training: TrainingSettings = field(default_factory=TrainingSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    metrics: Mapping[str, UserMetric] = field(default_factory=dict)

    def __post_init__(self) -> None:
        learn = _Inheritance(self.space, self.supernet, self.data_directory)
        metrics = {"val_loss": validation_loss, **self.metrics}
        self._scorer = NetworkEvaluator(self.space, self.data_directory, self.training, self.latency, metrics, learn)

    def evaluate(self, task: Task, *, report: Report) -> Outcome:
        """Inherit the weights of `task`'s architecture or load its start, apply what is left of the recipe, score."""
        return self._scorer.evaluate(task, report=report)


class _Inheritance:
    """Learning by inheritance: the supernet and the images for calibration are read at first use, in each process."""

    def __init__(self, space: ModelSpace, supernet: Path, data_directory: Path) -> None:
        self._space, self._directory, self._data_directory = space, supernet, data_directory
        self._loaded: tuple[Supernet, Tensor] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_loaded": None}

    def __call__(self, network: Network, task: Task, training: ImageTraining) -> Network:
        if self._loaded is None:
            images = calibration_images(Dataset.load(self._data_directory))
            self._loaded = Supernet.load(self._directory, self._space), images
        supernet, images = self._loaded
        module = network.copy_module()
        supernet.weights.inherit(module, task.candidate.architecture)
        recalibrate(module, images)
        return Network(module, network.structure, network.quantization)


def validation_loss(path: Path, data: Dataset) -> float:
    """Mean cross-entropy of an exported file on the validation split."""
    model, total = DeployedModel(path), 0.0
    for images, labels in data.batches(data.validation):
        logits = model(images.numpy()).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        total += float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]).sum())
    return total / len(data.validation)


def calibration_images(data: Dataset) -> Tensor:
    """(2048, C, H, W) float32 images of the training split or as many as there are, the same every time."""
    count = min(_CALIBRATION_IMAGES, len(data.train))
    # In an order of their own: batches should not consist of one class where the data set is sorted.
    chosen = np.random.default_rng(0).permutation(len(data.train))[:count]
    return data.normalise(data.train.images[chosen])


def recalibrate(module: nn.Module, images: Tensor) -> None:
    """Measure the running statistics of `module`'s batch normalisations anew, and leave it in evaluation mode.

    Statistics that a network of other widths has left behind are worthless to this one (Yu and Huang 2019). Each
    is the mean over batches of 256 of `images`, (N, C, H, W) float32; dropout is off.
    """
    import torch

    kinds = torch.nn.BatchNorm1d | torch.nn.BatchNorm2d | torch.nn.BatchNorm3d
    module.eval()
    layers = [layer for layer in module.modules() if isinstance(layer, kinds) and layer.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over batches
        layer.train()
    # A smaller last batch would count as much as the others.
    whole = max(1, len(images) // _CALIBRATION_BATCH) * _CALIBRATION_BATCH
    with torch.no_grad():
        for batch in torch.split(images[:whole], _CALIBRATION_BATCH):
            module(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    module.eval()


def describe(space: ModelSpace) -> dict[str, Any]:
    """What a supernet of `space` fits, as plain JSON values."""
    description = {
        "name": space.space_class.__name__,
        "input_shape": space.input_shape,
        "num_classes": space.num_classes,
        "choices": {choice.label: choice.values for choice in space.choices},
    }
    return json.loads(json.dumps(description))  # type: ignore[no-any-return]
