"""Weights shared by all networks of a space, and networks that inherit them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.supernet.slots import Slot, slots_of
from slimsearch.files import atomic, write_json
from slimsearch.reading import mismatch, read_json
from slimsearch.search_spaces import NniSpace

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, DESCRIPTION = "weights.safetensors", "supernet.json"
_FORMAT = 1

_MAX_STRUCTURES = 4096  # cached, a few kilobytes each
_CALIBRATION_IMAGES = 2048
_CALIBRATION_BATCH = 256


@dataclass(frozen=True)
class Structure:
    """A network without weights: `module` has empty parameters, `slots` locates each in the shared weights."""

    module: nn.Module
    slots: Mapping[str, Slot]

    @property
    def params(self) -> int:
        """Number of parameters."""
        return sum(int(np.prod(slot.shape)) for slot in self.slots.values())


class SharedWeights:
    """One tensor per parameter that networks of a space have in common; each network uses a slice of it.

    Two networks share a parameter if it has the same path in the space, including the chosen branches, the same kernel
    size, and inputs with the same composition:

    - The branches of a `LayerChoice`, and kernels of different sizes, share nothing.
    - Linear layers behind a flattened image share if they see the same number of positions per channel, so that the
      slice of a narrower one belongs to the same channels.
    - Layers behind a concatenation share if they see the same number of channels of each part.
    - Grouped (not depthwise) convolutions, and parameters with an unknown use, share between equal shapes only.
    - Every edge of a `Cell` has its own weights, as in DARTS.

    Buffers (running statistics) are not shared, see `recalibrate`.

    Source: sliced weights of slimmable networks (Yu et al. 2019) and Once-for-All (Cai et al. 2020), without the
    kernel transformation of the latter.

    Args:
        space: of the networks.
        device: of the tensors.
    """

    def __init__(self, space: NniSpace, device: str = "cpu") -> None:
        self.space = space
        self.device = device
        self.tensors: dict[str, nn.Parameter] = {}
        self._structures: OrderedDict[str, Structure] = OrderedDict()

    def structure(self, architecture: Mapping[str, Any]) -> Structure:
        """The structure of the network of `architecture`, cached.

        Raises:
            SlimsearchError: the network cannot be built, or fails on images of the space.
        """
        canonical = self.space.canonical(architecture)
        key = json.dumps(canonical)
        if key in self._structures:
            self._structures.move_to_end(key)
            return self._structures[key]
        module = self.space.build(canonical)
        structure = Structure(module, slots_of(self.space, canonical, module))
        for parameter in module.parameters():
            parameter.data = parameter.data.new_empty(0)
        module.to(self.device)
        self._structures[key] = structure
        if len(self._structures) > _MAX_STRUCTURES:
            self._structures.popitem(last=False)
        return structure

    def extend(self, architecture: Mapping[str, Any], seed: int = 0) -> list[str]:
        """Add the tensors that `architecture` lacks, initialized from `seed`; returns keys of new and larger ones.

        A tensor that is too small is replaced by a larger `Parameter` that contains its trained values.
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
        """Parameters of the network of `architecture` by name: slices of the shared tensors, with gradients.

        Raises:
            SlimsearchError: the shared weights have no trained tensor for one of them.
        """
        return self._views(architecture, self.structure(architecture).slots)

    def __call__(self, architecture: Mapping[str, Any], images: Tensor, *, training: bool = True) -> Tensor:
        """Logits of the network of `architecture`: (N, C, H, W) -> (N, num_classes)."""
        from torch.func import functional_call

        structure = self.structure(architecture)
        if structure.module.training != training:
            structure.module.train(training)
        return functional_call(structure.module, self._views(architecture, structure.slots), (images,))  # type: ignore[no-any-return]

    def inherit(self, module: nn.Module, architecture: Mapping[str, Any]) -> None:
        """Copy the weights of the network of `architecture` into `module`, as the space builds it.

        Raises:
            SlimsearchError: the shared weights have no trained tensor for one of its parameters.
        """
        import torch

        views = self.views(architecture)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(views[name])

    def on(self, device: str) -> SharedWeights:
        """A copy on `device`."""
        import torch

        copy = SharedWeights(self.space, device)
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
                    "no network with it was trained"
                )
            tensor = self.tensors[slot.key]
            views[name] = tensor if tensor.shape == slot.shape else tensor[tuple(map(slice, slot.shape))]
        return views

    def _enlarged(self, slot: Slot, fresh: nn.Parameter, seed: int) -> nn.Parameter:
        """A tensor that holds `slot`: the old values, `fresh` around them, random values like `fresh` elsewhere."""
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
    """Trained shared weights of a space.

    Attributes:
        weights: the tensors.
        facts: settings of their training, as plain JSON values.
    """

    weights: SharedWeights
    facts: Mapping[str, Any] = field(default_factory=dict)

    def subnet(self, architecture: Mapping[str, Any], images: Tensor) -> nn.Module:
        """The network of `architecture` with inherited weights, in evaluation mode.

        Args:
            architecture: a point of the space.
            images: (N, C, H, W) float32, normalized training images for `recalibrate`.

        Raises:
            SlimsearchError: the shared weights have no trained tensor for one of its parameters.
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
        description = {"format": _FORMAT, "space": describe(self.weights.space), "facts": dict(self.facts)}
        write_json(directory / DESCRIPTION, description)

    @classmethod
    def load(cls, directory: Path, space: NniSpace) -> Supernet:
        """Load a saved supernet of `space`.

        Raises:
            SlimsearchError: files are missing or damaged, or belong to another space.
        """
        import torch
        from safetensors.torch import load_file

        try:
            description = read_json(directory / DESCRIPTION)
            wrong = mismatch(description, {"space": dict, "facts": dict})
            if wrong is not None:
                raise SlimsearchError(wrong)
            stored_space, facts = description["space"], description["facts"]
            tensors = load_file(str(directory / WEIGHTS))
        except Exception as error:  # safetensors and the file system raise many kinds
            raise SlimsearchError(f"cannot load the supernet in '{directory}': {error}") from error
        wanted = describe(space)
        for name, value in wanted.items():
            if stored_space.get(name) != value:
                raise SlimsearchError(
                    f"the supernet in '{directory}' is of another space: "
                    f"its {name} is {stored_space.get(name)}, not {value}"
                )
        weights = SharedWeights(space)
        weights.tensors = {key: torch.nn.Parameter(tensor) for key, tensor in tensors.items()}
        return cls(weights, facts)


def calibration_images(data: Dataset) -> Tensor:
    """Up to 2,048 images of the training split, (N, C, H, W) float32, always the same."""
    count = min(_CALIBRATION_IMAGES, len(data.train))
    # Shuffled, since the data set may be sorted by class.
    chosen = np.random.default_rng(0).permutation(len(data.train))[:count]
    return data.normalise(data.train.inputs[chosen])


def recalibrate(module: nn.Module, images: Tensor) -> None:
    """Recompute the running statistics of all batch normalizations of `module`, and leave it in evaluation mode.

    Statistics from a network of other widths are useless (Yu and Huang 2019). Each becomes the mean over batches of
    256; dropout is off.

    Args:
        module: changed in place.
        images: (N, C, H, W) float32, normalized training images.
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
        layer.momentum = None  # cumulative mean over batches
        layer.train()
    # Without the last, smaller batch, which would have the same weight as the others.
    whole = max(1, len(images) // _CALIBRATION_BATCH) * _CALIBRATION_BATCH
    with torch.no_grad():
        for batch in torch.split(images[:whole], _CALIBRATION_BATCH):
            module(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    module.eval()


def describe(space: NniSpace) -> dict[str, Any]:
    """Identity of the space of a supernet, as plain JSON values."""
    description = {
        "name": space.name,
        "input_shape": space.input_shape,
        "num_classes": space.num_classes,
        "choices": {choice.label: choice.values for choice in space.choices},
    }
    return json.loads(json.dumps(description))  # type: ignore[no-any-return]
